package nbd

import "golang.org/x/sys/unix"

func closeFD(fd int) { unix.Close(fd) }

// hangUp ends the stream in both directions: whatever waits on the socket returns.
func hangUp(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) }
