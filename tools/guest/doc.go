// Package guest boots small virtual machines for tests, so that the clients that live in a kernel (virtio,
// the kernel's own NBD client, file systems) can be tested on machines whose own kernel lacks them.
//
//	Find     Debian's cloud kernel: downloaded once, unpacked in the user's cache, never installed
//	Image    an initramfs: busybox, programs of this machine with their libraries, kernel modules
//	Boot     qemu with software emulation, the image, and what disks and networks the caller gives it
//	Run      a shell script in the guest: its output, and an error if it failed
//	Kill     the power is cut
//
// The guest's first serial port is the kernel's console, which Log returns. The second carries scripts and
// their outputs, one at a time; both directions are lines of base64, so that nothing in them is mistaken:
//
//	host  -> guest   SCRIPT                 one line
//	guest -> host    ready                  once, after boot
//	guest -> host    OUTPUT... . STATUS     lines of output, then a dot and the script's exit status
package guest
