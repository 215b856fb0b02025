package record

// Records use the zigzag varints of protocol buffers: seven bits a byte, least
// significant first. The readers below take the position to read at and return
// the one behind the number, or a negative one when the bytes end first or the
// number does not fit. Overlong forms are accepted, as Kafka accepts them.

// varint32 reads a number of at most five bytes.
func varint32(p []byte, i int) (int32, int) {
	if uint(i) < uint(len(p)) && p[i] < 0x80 {
		return int32(p[i]>>1) ^ -int32(p[i]&1), i + 1
	}
	if j := i + 1; uint(j) < uint(len(p)) && p[j] < 0x80 {
		v := uint32(p[i]&0x7f) | uint32(p[j])<<7
		return int32(v>>1) ^ -int32(v&1), i + 2
	}
	return varint32Slow(p, i)
}

func varint32Slow(p []byte, i int) (int32, int) {
	var v uint32
	for shift := 0; uint(i) < uint(len(p)); shift += 7 {
		b := p[i]
		i++
		if shift == 28 && b > 0x0f {
			return 0, -1
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return int32(v>>1) ^ -int32(v&1), i
		}
	}
	return 0, -1
}

// varint64 reads a number of at most ten bytes.
func varint64(p []byte, i int) (int64, int) {
	if uint(i) < uint(len(p)) && p[i] < 0x80 {
		return int64(p[i]>>1) ^ -int64(p[i]&1), i + 1
	}
	return varint64Slow(p, i)
}

func varint64Slow(p []byte, i int) (int64, int) {
	var v uint64
	for shift := 0; uint(i) < uint(len(p)); shift += 7 {
		b := p[i]
		i++
		if shift == 63 && b > 1 {
			return 0, -1
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int64(v>>1) ^ -int64(v&1), i
		}
	}
	return 0, -1
}

// varintLen returns how many bytes appending v takes.
func varintLen(v int64) int {
	n := 1
	for u := zigzag(v); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// appendVarint appends v; a 32-bit number has the same bytes in either width.
func appendVarint(dst []byte, v int64) []byte {
	u := zigzag(v)
	for ; u >= 0x80; u >>= 7 {
		dst = append(dst, byte(u)|0x80)
	}
	return append(dst, byte(u))
}

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }
