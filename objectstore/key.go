package objectstore

import (
	"fmt"
	"strings"
)

// MaxKey is the longest key in bytes, within S3's 1,024 with room for a prefix.
const MaxKey = 900

// CheckKey says whether key may name an object: parts of 1 to 255 bytes from
// letters, digits and ._-=+@~, joined by '/', no part starting with a dot (so
// no "..", and no hidden files), no slash at either end. Such a key means the
// same in a URL, an XML answer and a file system.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("key is empty")
	}
	if len(key) > MaxKey {
		return fmt.Errorf("key %.40q... has %d bytes, more than %d", key, len(key), MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		switch {
		case part == "":
			return fmt.Errorf("key %q has an empty part", key)
		case part[0] == '.':
			return fmt.Errorf("key %q has a part that starts with a dot", key)
		case len(part) > 255:
			return fmt.Errorf("key %q has a part of more than 255 bytes", key)
		}
		for i := range len(part) {
			if !safe(part[i]) {
				return fmt.Errorf("key %q has the byte %q, which not every store keeps", key, part[i])
			}
		}
	}
	return nil
}

func safe(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-=+@~", c) >= 0
}
