"""What can go wrong between this program and a cluster."""


class ClusterError(Exception):
    """The API server cannot be asked, or does not do what it is asked to; a retry may help."""


class ForbiddenError(ClusterError):
    """The API server does not allow a request. The message names verb and resource; a retry does not help."""


class NotReadyError(ClusterError):
    """Pods did not become ready. The message has their own reasons; a retry helps when those have gone."""


class UnknownKindError(ClusterError):
    """The cluster does not know a kind of the declared router. A retry does not help."""
