package trace

import (
	"fmt"
	"testing"
)

func TestTheLastAreKeptInTheOrderOfTheirEnds(t *testing.T) {
	outer := Begin("outer")
	for i := range Kept + 10 {
		Begin(fmt.Sprint(i))()
	}
	outer()
	last := Last()
	if len(last) != Kept || last[0].Name != "11" || last[Kept-1].Name != "outer" {
		t.Fatal(len(last), last[0], last[len(last)-1])
	}
	o, i := last[Kept-1], last[Kept-2]
	if o.Start > i.Start || i.Start > i.End || i.End > o.End || o.Start == 0 {
		t.Error(o, i)
	}
}
