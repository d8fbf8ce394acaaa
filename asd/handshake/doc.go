// Package handshake begins a connection of the ASD protocol: both sides prove that they know the deployment's secret,
// then the ASD says who it is. It blocks, with a deadline; the connection is package link's after that.
package handshake
