package tiering

import (
	"github.com/firnlog/firn/commitlog"
	"github.com/firnlog/firn/tiering/format"
)

// The bucket's types are format's own, so that a reader of the bucket needs
// nothing of a broker.

func toEpochs(in []commitlog.EpochStart) []format.Epoch {
	out := make([]format.Epoch, len(in))
	for i, e := range in {
		out[i] = format.Epoch{Epoch: e.Epoch, Start: e.Start}
	}
	return out
}

func fromEpochs(in []format.Epoch) []commitlog.EpochStart {
	out := make([]commitlog.EpochStart, len(in))
	for i, e := range in {
		out[i] = commitlog.EpochStart{Epoch: e.Epoch, Start: e.Start}
	}
	return out
}

func toAborted(in []commitlog.AbortedTxn) []format.Aborted {
	out := make([]format.Aborted, len(in))
	for i, a := range in {
		out[i] = format.Aborted(a)
	}
	return out
}

func fromAborted(in []format.Aborted) []commitlog.AbortedTxn {
	out := make([]commitlog.AbortedTxn, len(in))
	for i, a := range in {
		out[i] = commitlog.AbortedTxn(a)
	}
	return out
}

func toProducers(in []commitlog.ProducerState) []format.Producer {
	out := make([]format.Producer, len(in))
	for i, p := range in {
		out[i] = format.Producer{ID: p.ID, Epoch: p.Epoch, CoordinatorEpoch: p.CoordinatorEpoch, TxnFirst: p.TxnFirst, LastTimestamp: p.LastTimestamp}
		for _, s := range p.Batches {
			out[i].Batches = append(out[i].Batches, format.SeqRange(s))
		}
	}
	return out
}

func fromProducers(in []format.Producer) []commitlog.ProducerState {
	out := make([]commitlog.ProducerState, len(in))
	for i, p := range in {
		out[i] = commitlog.ProducerState{ID: p.ID, Epoch: p.Epoch, CoordinatorEpoch: p.CoordinatorEpoch, TxnFirst: p.TxnFirst, LastTimestamp: p.LastTimestamp}
		for _, s := range p.Batches {
			out[i].Batches = append(out[i].Batches, commitlog.SeqRange(s))
		}
	}
	return out
}
