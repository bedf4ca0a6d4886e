"""Secrets are found by name and by look, and ordinary values are left alone."""

import pytest

from canary_policies.secrets import why_secret

INNOCENT = (
    ("LOG_LEVEL", "info"),
    ("PORT", "8080"),
    ("DEBUG", "false"),
    ("NODE_ENV", "production"),
    ("DATABASE_URL", "postgres://db.shop.svc.cluster.local:5432/shop?sslmode=require"),
    ("DATABASE_URL", "postgres://app@db:5432/shop"),
    ("DATABASE_URL", "postgres://app:$(DB_PASSWORD)@db:5432/shop"),
    ("REDIS_URL", "redis://redis-master.cache:6379/0"),
    ("AMQP_URL", "amqp://rabbitmq:5672/%2f"),
    ("KAFKA_BROKERS", "kafka-0.kafka:9092,kafka-1.kafka:9092,kafka-2.kafka:9092"),
    ("MONGO_HOSTS", "mongo-0.mongo-headless.data.svc.cluster.local:27017"),
    ("API_URL", "https://api.example.com/v1/orders?limit=100&sort=created_at"),
    ("TOKEN_URL", "https://login.example.com/oauth2/v2.0/token"),
    ("OAUTH_TOKEN", "https://vault.example.com/v1/auth/token"),
    ("ISSUER_URL", "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0"),
    ("IMAGE", "registry.example/shop/web@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ("IMAGE_DIGEST", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
    ("SIDECAR", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("SCRIPT_INTEGRITY", "sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC"),
    ("GIT_COMMIT", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    ("BUILD_SHA", "e85dac0b1f2c3d4e5f60718293a4b5c6d7e8f901"),
    ("TENANT", "550e8400-e29b-41d4-a716-446655440000"),
    ("CLIENT_ID", "0oa2hl2inow5Uqc6c357"),
    ("OAUTH_CLIENT_ID", "1234567890-a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6.apps.googleusercontent.com"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/eks-shop-web-production"),
    ("S3_BUCKET", "shop-production-assets-eu-central-1"),
    ("POD_NAME", "auth-service-canary-7d9f8b6c5d-x2k4q"),
    ("HOSTNAME", "ip-10-0-12-34.eu-central-1.compute.internal"),
    ("SERVICE_HOST", "nutrition-ai-service-canary.macromind.svc.cluster.local"),
    ("JAVA_OPTS", "-Xms512m -Xmx1024m -XX:+UseG1GC -Dfile.encoding=UTF-8"),
    ("JAVA_MAIN", "org.springframework.boot.loader.JarLauncher"),
    ("FACTORY", "AbstractSingletonProxyFactoryBean2Implementation"),
    ("NODE_OPTIONS", "--max-old-space-size=4096"),
    ("CRON", "*/15 * * * *"),
    ("TZ", "Europe/Berlin"),
    ("LANG", "en_US.UTF-8"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("PYTHONPATH", "/opt/App2/Lib/Python311/SitePackages"),
    ("MAX_TOKENS", "4096"),
    ("TOKEN_TTL", "3600"),
    ("TOKEN_TTL_SECONDS", "86400"),
    ("PASSWORD_MIN_LENGTH", "12"),
    ("PASSWORD_FILE", "/run/secrets/db-password"),
    ("POSTGRES_PASSWORD", "/run/secrets/db-password"),
    ("PASSWORD_HASH_ALGORITHM", "argon2id"),
    ("PASSWORD_RESET_ENABLED", "true"),
    ("REQUIRE_PASSWORD", "true"),
    ("SECRET_NAME", "db-credentials"),
    ("TLS_SECRET", "shop-example-com-tls"),
    ("IMAGE_PULL_SECRET", "regcred"),
    ("SECRETS_PATH", "/vault/secrets"),
    ("DB_PASSWORD", "vault:secret/data/shop#password"),
    ("DB_PASSWORD", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop-db-Ab12Cd"),
    ("DB_PASSWORD", "projects/shop/secrets/db/versions/latest"),
    ("DB_PASSWORD", "op://shop/db/password"),
    ("DB_PASSWORD", "${DB_PASSWORD}"),
    ("DB_PASSWORD", "<set-by-deploy>"),
    ("DB_PASSWORD", ""),
    ("API_KEY_HEADER", "X-Api-Key"),
    ("CSRF_TOKEN_NAME", "csrftoken"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("JWT_ALGORITHM", "RS256"),
    ("STRIPE_PUBLISHABLE", "pk_live_51H8xQ2eZvKYlo2C9aBcDeFgHiJkLmNoP"),
    ("SSH_PUBLIC_KEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPq8Zr2Lw9Xk4Tn7Bv1Yc6Hd3MuJ0sGf5KeWaRtQyZx deploy"),
    ("CA_CERT", "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ2k\n-----END CERTIFICATE-----"),
    ("PUBLIC_KEY_B64", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEq8Zr2Lw9Xk4Tn7Bv1Yc6Hd3M"),
    ("GREETING", "SGVsbG8gZnJvbSB0aGUgc2hvcCwgZ29vZCBtb3JuaW5nIQ=="),
    ("BANNER_JSON", "eyJ0aXRsZSI6ICJXZWxjb21lIiwgImxldmVsIjogMX0="),
    ("SENTRY_DSN", "https://0123456789abcdef0123456789abcdef@o4501.ingest.sentry.io/4502"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel-collector.observability:4317"),
    ("OTEL_RESOURCE_ATTRIBUTES", "service.name=auth,deployment.environment=prod,service.version=1.4.2"),
    ("FEATURE_FLAGS", "newCheckout=true,darkMode=false,experiment42=variantB"),
    ("ALLOWED_ORIGINS", "https://shop.example.com,https://admin.example.com"),
    ("CONNECTION", "Server=db;Database=shop;Integrated Security=true"),
    ("GPU", "NVIDIA-A100-SXM4-80GB"),
    ("BUILD_DATE", "2026-11-23T12:18:07Z"),
    ("PHONE", "+49301234567890123456789"),
    ("MONKEY_BUSINESS", "keyboard"),
    ("PARTITION_KEY", "customer_id"),
    ("ALPHABET", "abcdefghijklmnopqrstuvwxyz"),
)

GUILTY = (
    ("DB_PASSWORD", "hunter2"),
    ("DB_PASSWORD", "12345678"),
    ("POSTGRES_PASSWORD", "correct horse battery staple"),
    ("mysql-root-password", "toor"),
    ("dbPassword", "s3cr3t"),
    ("PGPASSWD", "letmein!"),
    ("REDIS_PWD", "r3d1s"),
    ("DB_PASSWORD_2", "hunter2"),
    ("API_KEY", "abc-123"),
    ("STRIPE_APIKEY", "abc-123"),
    ("AUTH_TOKEN", "let-me-in"),
    ("JWT_SECRET", "changeit-please"),
    ("CLIENT_SECRET", "not-so-secret"),
    ("SECRET_KEY_BASE", "a-long-phrase"),
    ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
    ("ENCRYPTION_KEY", "my-own-key"),
    ("SIGNING_KEY", "my-own-key"),
    ("CREDENTIALS", "app:hunter2"),
    ("SSH_PASSPHRASE", "open sesame"),
    ("DATABASE_URL", "postgres://app:hunter2@db:5432/shop"),
    ("MONGO_URL", "mongodb+srv://root:p4ss%21@cluster0.example.net/?retryWrites=true"),
    ("REDIS_URL", "redis://:hunter2@redis:6379"),
    ("DSN", "Server=db;User=app;Password=hunter2;Database=shop"),
    ("STORAGE", "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey=q8Zr2Lw9Xk4Tn7Bv1Yc6Hd3M=="),
    ("WEBHOOK", "https://example.com/hook?sig=q8Zr2Lw9Xk4Tn7Bv1Yc6"),
    ("GITHUB", "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"),
    ("GITLAB", "glpat-" + "q8Zr2Lw9Xk4Tn7Bv1Yc6"),
    ("SLACK", "xoxb-" + "123456789012-123456789012-q8Zr2Lw9Xk4T"),
    ("MAPS", "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q"),
    ("PAYMENTS", "sk_live_" + "51H8xQ2eZvKYlo2C9aBcDeFg"),
    ("BEARER", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"),
    ("KEYFILE", "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"),
    ("SALT", "q8Zr2Lw9Xk4Tn7Bv1Yc6Hd3M"),
    ("SEED", "5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b5aa765d61d8327deb882cf99"),
    ("PEPPER", "kQ3mX8vB2nL7pR5tY9wZ1cD4fG6hJ0aS"),
    ("EXTRA_ARGS", "--verbose --aws-key AKIAIOSFODNN7EXAMPLE"),
)


def test_the_lists_are_long_enough_to_mean_something() -> None:
    assert len(set(INNOCENT)) >= 60
    assert len(set(GUILTY)) >= 30


@pytest.mark.parametrize(("name", "value"), INNOCENT)
def test_an_ordinary_value_is_left_alone(name: str, value: str) -> None:
    assert why_secret(name, value) is None


@pytest.mark.parametrize(("name", "value"), GUILTY)
def test_a_secret_is_found_and_not_repeated(name: str, value: str) -> None:
    reason = why_secret(name, value)

    assert reason
    assert value not in reason
