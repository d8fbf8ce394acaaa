package nbd

import (
	"encoding/binary"
	"fmt"
)

// Transmission phase, what the server sends. All integers are big endian. This file is pure.
//
// Simple reply, 16 bytes, followed by the data of a CmdRead if Error is 0. Its length is not in it:
//
//	0   4   magic 0x67446698
//	4   4   error
//	8   8   cookie
//
// Structured chunk, 20 bytes, followed by Length bytes:
//
//	 0   4   magic 0x668e33ef
//	 4   2   flags: 1 = the last chunk of this reply
//	 6   2   type
//	 8   8   cookie
//	16   4   length
//
// Extended chunk, 32 bytes, followed by Length bytes:
//
//	 0   4   magic 0x6e8a278c
//	 4  12   flags, type, cookie: as above
//	16   8   offset of the request
//	24   8   length
//
// What follows a chunk's header, by type:
//
//	OFFSET_DATA        u64 offset, data
//	OFFSET_HOLE        u64 offset, u32 length: that many zeros
//	BLOCK_STATUS       u32 context, then per extent u32 length, u32 status   (structured only)
//	BLOCK_STATUS_EXT   u32 context, u32 count, then per extent u64 length, u64 status   (extended only)
//	ERROR              u32 error, u16 length of a sentence, the sentence
//	ERROR_OFFSET       the same, then u64 offset
const (
	replyMagic         = 0x67446698
	chunkMagic         = 0x668e33ef
	extendedChunkMagic = 0x6e8a278c

	// ReplySize, ChunkSize and ExtendedChunkSize are the sizes in bytes of the headers drawn above.
	ReplySize         = 16
	ChunkSize         = 20
	ExtendedChunkSize = 32

	// ChunkDone marks the last chunk of a reply.
	ChunkDone = 1
)

// ChunkType says what follows the header of a chunk.
type ChunkType uint16

const (
	ChunkNone           ChunkType = 0
	ChunkData           ChunkType = 1
	ChunkHole           ChunkType = 2
	ChunkStatus         ChunkType = 5
	ChunkStatusExtended ChunkType = 6
	ChunkError          ChunkType = 1<<15 + 1
	ChunkErrorOffset    ChunkType = 1<<15 + 2
)

// IsError reports whether the request has failed.
func (t ChunkType) IsError() bool { return t&(1<<15) != 0 }

func (t ChunkType) String() string {
	switch t {
	case ChunkNone:
		return "none"
	case ChunkData:
		return "data"
	case ChunkHole:
		return "hole"
	case ChunkStatus:
		return "status"
	case ChunkStatusExtended:
		return "status-ext"
	case ChunkError:
		return "error"
	case ChunkErrorOffset:
		return "error-offset"
	}
	return fmt.Sprintf("chunk %#x", uint16(t))
}

// PutReply writes a simple reply header into the first ReplySize bytes of b.
func PutReply(b []byte, e Errno, cookie uint64) {
	binary.BigEndian.PutUint32(b, replyMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(e))
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// ParseReply reads a simple reply header; false if b is too short or the magic is wrong.
func ParseReply(b []byte) (e Errno, cookie uint64, ok bool) {
	if len(b) < ReplySize || binary.BigEndian.Uint32(b) != replyMagic {
		return 0, 0, false
	}
	return Errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:]), true
}

// Chunk is the header of a chunk.
type Chunk struct {
	Done   bool
	Type   ChunkType
	Cookie uint64
	Offset uint64 // extended: that of the request
	Length uint64 // bytes that follow
}

// chunkSize is the size of mode m's chunk header.
func chunkSize(m Mode) int {
	if m == Extended {
		return ExtendedChunkSize
	}
	return ChunkSize
}

// putChunk writes a chunk header of mode m, Structured or Extended, to b and returns its size.
func putChunk(b []byte, m Mode, c Chunk) int {
	flags := uint16(0)
	if c.Done {
		flags = ChunkDone
	}
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], uint16(c.Type))
	binary.BigEndian.PutUint64(b[8:], c.Cookie)
	if m == Extended {
		binary.BigEndian.PutUint32(b, extendedChunkMagic)
		binary.BigEndian.PutUint64(b[16:], c.Offset)
		binary.BigEndian.PutUint64(b[24:], c.Length)
		return ExtendedChunkSize
	}
	binary.BigEndian.PutUint32(b, chunkMagic)
	binary.BigEndian.PutUint32(b[16:], uint32(c.Length))
	return ChunkSize
}

// ParseChunk reads the chunk header of mode m; false if b is too short or the magic is another.
func ParseChunk(b []byte, m Mode) (c Chunk, ok bool) {
	magic := uint32(chunkMagic)
	if m == Extended {
		magic = extendedChunkMagic
	}
	if len(b) < chunkSize(m) || binary.BigEndian.Uint32(b) != magic {
		return Chunk{}, false
	}
	c = Chunk{Done: binary.BigEndian.Uint16(b[4:])&ChunkDone != 0, Type: ChunkType(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:])}
	if m == Extended {
		c.Offset, c.Length = binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])
	} else {
		c.Length = uint64(binary.BigEndian.Uint32(b[16:]))
	}
	return c, true
}

// errorRoom is the longest answer that is no data: an extended ERROR_OFFSET with the longest sentence.
const errorRoom = ExtendedChunkSize + 4 + 2 + reasonMax + 8

// putError writes the chunk that ends a request with error e to b and returns its size. at, if not
// negative, is where on the export it failed.
func putError(b []byte, m Mode, c Chunk, e Errno, sentence string, at int64) int {
	c.Done, c.Type, c.Length = true, ChunkError, uint64(6+len(sentence))
	if at >= 0 {
		c.Type = ChunkErrorOffset
		c.Length += 8
	}
	n := putChunk(b, m, c)
	binary.BigEndian.PutUint32(b[n:], uint32(e))
	binary.BigEndian.PutUint16(b[n+4:], uint16(len(sentence)))
	n += 6
	n += copy(b[n:], sentence)
	if at >= 0 {
		binary.BigEndian.PutUint64(b[n:], uint64(at))
		n += 8
	}
	return n
}

// putData writes the header of length bytes of data from offset at on to b and returns its size.
func putData(b []byte, m Mode, c Chunk, at, length int64) int {
	c.Type, c.Length = ChunkData, uint64(length)+8
	n := putChunk(b, m, c)
	binary.BigEndian.PutUint64(b[n:], uint64(at))
	return n + 8
}

// putHole writes that length bytes from offset at on are zeros.
func putHole(b []byte, m Mode, c Chunk, at, length int64) int {
	c.Type, c.Length = ChunkHole, 12
	n := putChunk(b, m, c)
	binary.BigEndian.PutUint64(b[n:], uint64(at))
	binary.BigEndian.PutUint32(b[n+8:], uint32(length))
	return n + 12
}

// statusHead and statusEntry are the sizes in bytes of what a status chunk has before its extents, with
// the chunk's header, and per extent.
func statusHead(m Mode) int {
	if m == Extended {
		return ExtendedChunkSize + 8
	}
	return ChunkSize + 4
}

func statusEntry(m Mode) int {
	if m == Extended {
		return 16
	}
	return 8
}

// putStatusHead writes what stands before n extents.
func putStatusHead(b []byte, m Mode, c Chunk, context uint32, n int) {
	c.Type, c.Length = ChunkStatus, uint64(4+8*n)
	if m == Extended {
		c.Type, c.Length = ChunkStatusExtended, uint64(8+16*n)
	}
	at := putChunk(b, m, c)
	binary.BigEndian.PutUint32(b[at:], context)
	if m == Extended {
		binary.BigEndian.PutUint32(b[at+4:], uint32(n))
	}
}

// putExtent writes one extent of length bytes.
func putExtent(b []byte, m Mode, length uint64, status uint32) {
	if m == Extended {
		binary.BigEndian.PutUint64(b, length)
		binary.BigEndian.PutUint64(b[8:], uint64(status))
		return
	}
	binary.BigEndian.PutUint32(b, uint32(length))
	binary.BigEndian.PutUint32(b[4:], status)
}
