// Package listen gives the control channel as a net.Listener: a vsock port, or a virtio-serial port.
package listen

import "net"

// Names of the channel, part of the contract with the host.
const (
	PortName  = "woodlot.agent"
	VsockPort = 1024
)

type addr string

func (a addr) Network() string { return string(a) }
func (a addr) String() string  { return string(a) }

var _ net.Addr = addr("")
