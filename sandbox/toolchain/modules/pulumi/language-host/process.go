package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/cmdutil"
)

// gracePeriod is how long an interrupted program may take to end. It is shorter than the five seconds after which the
// engine kills the host, so that the host is still there to kill the program.
const gracePeriod = 2 * time.Second

// runInGroup runs the command to its end, in a process group of its own. The end of the context interrupts that group
// as Ctrl-C in a terminal would. Of a command that was interrupted or failed nothing stays: what is left of its group
// when it has ended, or when the grace period is over, is killed.
//
// The command must have been made with the same context. A wait other than the command's own may be given.
func runInGroup(ctx context.Context, cmd *exec.Cmd, wait func() error) error {
	cmdutil.RegisterProcessGroup(cmd)
	cmd.Cancel = func() error {
		cmdutil.InterruptChildren(cmd.Process.Pid)
		return nil
	}
	cmd.WaitDelay = gracePeriod
	if err := cmd.Start(); err != nil {
		return err
	}
	err := wait()
	if err != nil || ctx.Err() != nil {
		_ = cmdutil.KillChildren(cmd.Process.Pid) // fails when nothing is left to kill
	}
	return err
}

// describe says how a process ended: with which exit code, or by which signal.
func describe(exit *exec.ExitError) string {
	if exit.Exited() {
		return fmt.Sprintf("exited with non-zero exit code: %d", exit.ExitCode())
	}
	return fmt.Sprintf("was ended by a %s", exit.ProcessState)
}
