package main

import "syscall"

// dieWithParent ends a child when the test process is gone, however it ended.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
