package memory

import (
	"testing"
	"time"

	"github.com/firnlog/firn/metadata"
	"github.com/firnlog/firn/metadata/contract"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	contract.Run(t, func(t *testing.T) func() metadata.Store {
		s := NewServer(1, time.Now)
		return func() metadata.Store {
			st := s.Open()
			t.Cleanup(func() { st.Close() })
			return st
		}
	})
}
