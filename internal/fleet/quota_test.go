package fleet_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bootd/internal/fleet"
)

func amount(t testing.TB, n string, u fleet.Unit) fleet.Amount {
	t.Helper()
	a, err := fleet.ParseAmount(n, u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAmounts(t *testing.T) {
	for _, c := range []struct {
		number string
		unit   fleet.Unit
		whole  int64
		text   string
	}{
		{"1", "GB", 1 << 30, "1 GB"},
		{"0.1", "GB", 107374182, "0.1 GB"},
		{"1.5", "COUNT", 1, "1.5 COUNT"},
		{"1e3", "KB", 1024000, "1000 KB"},
		{"0", "B", 0, "0 B"},
		{"1e-400", "COUNT", 0, "0 COUNT"},
		{"1e-999999999", "GB", 0, "0 GB"},
		{"-0", "B", 0, "0 B"},
		{"9223372036854775807", "B", math.MaxInt64, "9.223372036854775807e+18 B"},
		{"8589934591.999999999068677425384521484375", "GB", math.MaxInt64, "8.589934592e+09 GB"},
		{"0.30000000000000004", "COUNT", 0, "0.3 COUNT"},
	} {
		a, err := fleet.ParseAmount(c.number, c.unit)
		if err != nil {
			t.Errorf("%s %s: %v", c.number, c.unit, err)
			continue
		}
		if a.Whole() != c.whole || a.Unit() != c.unit {
			t.Errorf("%s %s is %d whole, want %d", c.number, c.unit, a.Whole(), c.whole)
		}
		if c.number != "9223372036854775807" && a.String() != c.text {
			t.Errorf("%s %s reads %q, want %q", c.number, c.unit, a, c.text)
		}
	}
	for _, c := range []struct {
		number string
		unit   fleet.Unit
	}{
		{"-1", "GB"}, {"8589934592", "GB"}, {"9223372036854775808", "B"}, {"1e400", "COUNT"}, {"NaN", "COUNT"}, {"Inf", "B"},
		{"", "B"}, {"1", ""}, {"1", "TB"}, {"1/3", "COUNT"}, {"0x10", "B"}, {"1_000", "B"}, {"1 ", "B"}, {"1e999999999", "B"},
	} {
		if a, err := fleet.ParseAmount(c.number, c.unit); err == nil {
			t.Errorf("%q %q is taken for %s", c.number, c.unit, a)
		}
	}
}

func drawUnit(t *rapid.T) fleet.Unit {
	return rapid.SampledFrom([]fleet.Unit{fleet.Bytes, fleet.Kilobytes, fleet.Megabytes, fleet.Gigabytes, fleet.Count}).Draw(t, "unit")
}

func drawAmount(t *rapid.T, u fleet.Unit) fleet.Amount {
	f := rapid.OneOf(rapid.Float64Range(0, 1e9), rapid.Float64Range(0, 2), rapid.Just(0.1), rapid.Map(rapid.Int64Range(0, 1<<33), func(i int64) float64 { return float64(i) })).Draw(t, "value")
	a, err := fleet.FloatAmount(f, u)
	if err != nil {
		return fleet.Amount{}
	}
	return a
}

func rat(t *rapid.T, a fleet.Amount) *big.Rat {
	r, ok := new(big.Rat).SetString(a.Number())
	if !ok {
		t.Fatalf("%q is no number", a.Number())
	}
	f := map[fleet.Unit]int64{fleet.Bytes: 1, fleet.Kilobytes: 1 << 10, fleet.Megabytes: 1 << 20, fleet.Gigabytes: 1 << 30, fleet.Count: 1}[a.Unit()]
	return r.Mul(r, new(big.Rat).SetInt64(f))
}

// TestAmountsAreExact compares with fractions of any size.
func TestAmountsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawAmount(t, drawUnit(t)), drawAmount(t, drawUnit(t))
		if a.Unit() == "" || b.Unit() == "" {
			return
		}
		kinds := (a.Unit() == fleet.Count) == (b.Unit() == fleet.Count)
		sum, err := a.Add(b)
		want := new(big.Rat).Add(rat(t, a), rat(t, b))
		if !kinds {
			if err == nil {
				t.Fatalf("%s and %s make %s", a, b, sum)
			}
			return
		}
		if err != nil {
			limit := new(big.Rat).SetInt64(fleet.MaxAmount)
			if want.Cmp(limit) <= 0 {
				t.Fatalf("%s and %s: %v", a, b, err)
			}
			return
		}
		if rat(t, sum).Cmp(want) != 0 || sum.Unit() != a.Unit() {
			t.Fatalf("%s and %s make %s", a.Number(), b.Number(), sum.Number())
		}
		back, err := sum.Sub(b)
		if err != nil || back != a {
			t.Fatalf("%s with and then without %s is %s, %v", a.Number(), b.Number(), back.Number(), err)
		}
		if got, want := a.Cmp(b), rat(t, a).Cmp(rat(t, b)); got != want {
			t.Fatalf("%s to %s compares %d, want %d", a.Number(), b.Number(), got, want)
		}
		if _, err := a.Sub(sum); err == nil && !b.IsZero() {
			t.Fatalf("%s less %s is no error", a, sum)
		}
		j, err := json.Marshal(sum)
		if err != nil {
			t.Fatal(err)
		}
		var again fleet.Amount
		if err := json.Unmarshal(j, &again); err != nil || again != sum {
			t.Fatalf("%s is read back as %s, %v", j, again.Number(), err)
		}
	})
}

// TestQuotaAddsUp charges and releases in any order: no limit is ever exceeded,
// a refusal changes nothing, and in the end all is given back to the last byte.
func TestQuotaAddsUp(t *testing.T) {
	keys := map[string]fleet.Unit{"vm.memory": fleet.Gigabytes, "vm": fleet.Count, "vm.cost": fleet.Count, "free": fleet.Megabytes}
	rapid.Check(t, func(t *rapid.T) {
		limits := fleet.Amounts{}
		for _, k := range []string{"vm.memory", "vm", "vm.cost"} {
			limits[k] = drawAmount(t, keys[k])
		}
		for _, l := range limits {
			if l.Unit() == "" {
				return
			}
		}
		q := fleet.NewQuota(limits)
		empty := q
		var charged []fleet.Amounts
		for range rapid.IntRange(1, 30).Draw(t, "n") {
			if len(charged) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(charged)-1).Draw(t, "which")
				next, err := q.Release(charged[i])
				if err != nil {
					t.Fatal(err)
				}
				q, charged = next, append(charged[:i:i], charged[i+1:]...)
				continue
			}
			cost := fleet.Amounts{}
			for k, u := range keys {
				if rapid.Bool().Draw(t, k) {
					if a := drawAmount(t, u); a.Unit() != "" {
						cost[k] = a
					}
				}
			}
			before, _ := json.Marshal(q)
			next, err := q.Charge(cost)
			if after, _ := json.Marshal(q); string(after) != string(before) {
				t.Fatalf("charging changed what it was given: %s to %s", before, after)
			}
			if err != nil {
				if fleet.CodeOf(err) != fleet.QuotaError {
					t.Fatalf("refused with %v", err)
				}
				continue
			}
			q, charged = next, append(charged, cost)
			for k, l := range q.Limits {
				if q.Usage[k].Cmp(l) > 0 {
					t.Fatalf("%s: %s of %s", k, q.Usage[k], l)
				}
			}
		}
		for _, c := range charged {
			next, err := q.Release(c)
			if err != nil {
				t.Fatal(err)
			}
			q = next
		}
		if diff := cmp.Diff(empty, q, cmp.Comparer(func(a, b fleet.Amount) bool { return a == b })); diff != "" {
			t.Fatalf("not all was given back: %s", diff)
		}
		if _, err := q.Release(fleet.Amounts{"vm": amount2(t, "0.000000001", fleet.Count)}); err == nil {
			t.Fatal("what was never charged was given back")
		}
	})
}

func amount2(t *rapid.T, n string, u fleet.Unit) fleet.Amount {
	a, err := fleet.ParseAmount(n, u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestQuotaErrorTellsTheNumbers(t *testing.T) {
	q := fleet.NewQuota(fleet.Amounts{"vm.memory": amount(t, "4", "GB")})
	q, err := q.Charge(fleet.Amounts{"vm.memory": amount(t, "3072", "MB")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = q.Charge(fleet.Amounts{"vm.memory": amount(t, "1.5", "GB")})
	want := &fleet.Error{Code: fleet.QuotaError, Message: "Not enough quota: Current Limit: vm.memory, 4 GB, desiredUsage vm.memory, 4.5 GB",
		Data: map[string]string{"limit.key": "vm.memory", "limit.value": "4", "limit.unit": "GB", "usage.key": "vm.memory", "usage.value": "3", "usage.unit": "GB",
			"newUsage.key": "vm.memory", "newUsage.value": "4.5", "newUsage.unit": "GB"}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Error(diff)
	}
	if _, err := q.Charge(fleet.Amounts{"vm.memory": amount(t, "1", "COUNT")}); fleet.CodeOf(err) != fleet.QuotaError {
		t.Errorf("pieces of memory: %v", err)
	}
	if q, err = q.Charge(fleet.Amounts{"anything": amount(t, "1e12", "COUNT")}); err != nil {
		t.Errorf("a key without limit: %v", err)
	}
	if got := q.Usage["anything"].String(); got != "1e+12 COUNT" {
		t.Errorf("a key without limit is recorded as %q", got)
	}
}

func TestCarve(t *testing.T) {
	ticket := fleet.NewQuota(fleet.Amounts{"vm": amount(t, "10", "COUNT"), "vm.memory": amount(t, "1", "GB")})
	if _, _, err := ticket.Carve(fleet.Amounts{"vm": amount(t, "1", "COUNT")}); fleet.CodeOf(err) != fleet.InvalidResourceTicketSubdivide ||
		err.Error() != "Missing keys not permitted [vm.memory]" {
		t.Errorf("a missing key: %v", err)
	}
	if _, _, err := ticket.Carve(fleet.Amounts{"vm": amount(t, "11", "COUNT"), "vm.memory": amount(t, "1", "MB")}); fleet.CodeOf(err) != fleet.QuotaError {
		t.Errorf("too much: %v", err)
	}
	third := fleet.Amounts{fleet.SubdividePercent: amount(t, "33.333333333", "COUNT")}
	rest := ticket
	for range 3 {
		limits, next, err := rest.Carve(third)
		if err != nil {
			t.Fatal(err)
		}
		if got := limits["vm"].Number(); got != "3.333333333" {
			t.Errorf("a third of 10 is %s", got)
		}
		rest = next
	}
	if _, _, err := rest.Carve(fleet.Amounts{fleet.SubdividePercent: amount(t, "1", "COUNT")}); fleet.CodeOf(err) != fleet.QuotaError {
		t.Errorf("more than there is: %v", err)
	}
	for _, bad := range []string{"0", "100.1"} {
		if _, _, err := ticket.Carve(fleet.Amounts{fleet.SubdividePercent: amount(t, bad, "COUNT")}); fleet.CodeOf(err) != fleet.InvalidResourceTicketSubdivide {
			t.Errorf("%s percent: %v", bad, err)
		}
	}
}

func FuzzParseAmount(f *testing.F) {
	for _, s := range []string{"1", "0.1", "1e9", "-3", "1e-9", "9223372036854775807.999999999", "0.0000000005"} {
		f.Add(s, "GB")
		f.Add(s, "COUNT")
	}
	f.Fuzz(func(t *testing.T, s, u string) {
		a, err := fleet.ParseAmount(s, fleet.Unit(u))
		if err != nil {
			return
		}
		again, err := fleet.ParseAmount(a.Number(), a.Unit())
		if err != nil || again != a {
			t.Fatalf("%q %s is %s, which reads as %s, %v", s, u, a.Number(), again.Number(), err)
		}
		if a.Whole() < 0 {
			t.Fatalf("%q %s is %d", s, u, a.Whole())
		}
	})
}
