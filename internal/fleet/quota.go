package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// A Unit is what an [Amount] counts.
type Unit string

// The units. 1 KB is 1024 B.
const (
	Bytes     Unit = "B"
	Kilobytes Unit = "KB"
	Megabytes Unit = "MB"
	Gigabytes Unit = "GB"
	Count     Unit = "COUNT"
)

// factor is how many bytes, or how many pieces, one of a unit is; 0 for what is
// no unit.
func (u Unit) factor() int64 {
	switch u {
	case Bytes, Count:
		return 1
	case Kilobytes:
		return 1 << 10
	case Megabytes:
		return 1 << 20
	case Gigabytes:
		return 1 << 30
	}
	return 0
}

func (u Unit) valid() bool { return u.factor() != 0 }

// fits reports whether amounts of two units can be compared.
func (u Unit) fits(v Unit) bool { return u.valid() && v.valid() && (u == Count) == (v == Count) }

// nano is the finest part of a byte or a piece that is told apart.
const nano = 1_000_000_000

// An Amount is a number of bytes or pieces that is not negative, exact to a
// billionth, and the unit people want to read it in. Amounts are compared with
// [Amount.Cmp]; == also compares the unit. The zero value has no unit, and
// is not valid.
type Amount struct {
	whole int64 // bytes or pieces
	part  int32 // billionths of one
	unit  Unit
}

// MaxAmount is the largest number of bytes or pieces: one less than 8 EiB.
const MaxAmount = math.MaxInt64

// NewAmount is n of a unit. It is an error if that is negative, more than
// [MaxAmount] bytes or pieces, or if there is no such unit.
func NewAmount(n int64, u Unit) (Amount, error) {
	return amount(new(big.Rat).SetInt64(n), u)
}

// ParseAmount reads a decimal number, as JSON has it, of a unit. What it has
// beyond billionths of a byte or a piece is rounded.
func ParseAmount(number string, u Unit) (Amount, error) {
	if len(number) > 64 || strings.ContainsAny(number, "/_xXpP") {
		return Amount{}, fmt.Errorf("%.70q is not a number", number)
	}
	// What a float64 tells about its size keeps exponents small that would take
	// gigabytes to write out.
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || math.IsInf(f, 0) || math.IsNaN(f) || math.Abs(f) > 1e30:
		return Amount{}, fmt.Errorf("%q is not a number that can be counted with", number)
	case math.Abs(f) < 1e-60:
		return amount(new(big.Rat), u)
	}
	r, ok := new(big.Rat).SetString(number)
	if !ok {
		return Amount{}, fmt.Errorf("%q is not a number", number)
	}
	return amount(r, u)
}

// FloatAmount is for numbers that were a float64 already.
func FloatAmount(f float64, u Unit) (Amount, error) {
	return ParseAmount(strconv.FormatFloat(f, 'g', -1, 64), u)
}

func amount(r *big.Rat, u Unit) (Amount, error) {
	if !u.valid() {
		return Amount{}, fmt.Errorf("%q is not a unit; there are B, KB, MB, GB and COUNT", string(u))
	}
	if r.Sign() < 0 {
		return Amount{}, fmt.Errorf("%s %s is negative", r.FloatString(0), u)
	}
	r = new(big.Rat).Mul(r, new(big.Rat).SetInt64(u.factor()*nano))
	n := new(big.Int).Mul(r.Num(), big.NewInt(2))
	n.Add(n, r.Denom()).Quo(n, new(big.Int).Mul(r.Denom(), big.NewInt(2))) // rounded half up
	return split(n, u)
}

// split makes an amount of billionths.
func split(n *big.Int, u Unit) (Amount, error) {
	whole, part := new(big.Int).QuoRem(n, big.NewInt(nano), new(big.Int))
	if !whole.IsInt64() {
		return Amount{}, fmt.Errorf("it is more than %d %s", int64(MaxAmount), u.base())
	}
	return Amount{whole.Int64(), int32(part.Int64()), u}, nil
}

func (u Unit) base() Unit {
	if u == Count {
		return Count
	}
	return Bytes
}

// Unit is what it is to be read in.
func (a Amount) Unit() Unit { return a.unit }

// Whole is the number of whole bytes or pieces.
func (a Amount) Whole() int64 { return a.whole }

// IsZero reports whether it is nothing, of whatever unit.
func (a Amount) IsZero() bool { return a.whole == 0 && a.part == 0 }

// In is the same amount to be read in another unit. It is an error if one
// counts bytes and the other pieces.
func (a Amount) In(u Unit) (Amount, error) {
	if !a.unit.fits(u) {
		return Amount{}, fmt.Errorf("%s cannot be told in %s", a, u)
	}
	a.unit = u
	return a, nil
}

// Cmp compares. Bytes and pieces have an order too, but no meaning.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a.whole != b.whole && a.whole < b.whole, a.whole == b.whole && a.part < b.part:
		return -1
	case a.whole == b.whole && a.part == b.part:
		return 0
	}
	return 1
}

// Add is the sum, in a's unit. It is an error if it is too large, or if one
// counts bytes and the other pieces.
func (a Amount) Add(b Amount) (Amount, error) {
	if !a.unit.fits(b.unit) {
		return a, fmt.Errorf("%s and %s cannot be added", a, b)
	}
	part, carry := a.part+b.part, int64(0)
	if part >= nano {
		part, carry = part-nano, 1
	}
	sum, over := bits.Add64(uint64(a.whole), uint64(b.whole), uint64(carry))
	if over != 0 || sum > MaxAmount {
		return a, fmt.Errorf("%s and %s are more than %d %s", a, b, int64(MaxAmount), a.unit.base())
	}
	return Amount{int64(sum), part, a.unit}, nil
}

// Sub is the difference, in a's unit. It is an error if b is the larger, or if
// one counts bytes and the other pieces.
func (a Amount) Sub(b Amount) (Amount, error) {
	if !a.unit.fits(b.unit) || a.Cmp(b) < 0 {
		return a, fmt.Errorf("%s cannot be taken from %s", b, a)
	}
	whole, part := a.whole-b.whole, a.part-b.part
	if part < 0 {
		whole, part = whole-1, part+nano
	}
	return Amount{whole, part, a.unit}, nil
}

// Percent is so many hundredths, rounded down, so that shares of a hundred
// percent together are never more than the whole.
func (a Amount) Percent(p Amount) (Amount, error) {
	n := a.nanos()
	n.Mul(n, p.nanos())
	return split(n.Quo(n, big.NewInt(100*nano)), a.unit)
}

func (a Amount) nanos() *big.Int {
	n := new(big.Int).Mul(big.NewInt(a.whole), big.NewInt(nano))
	return n.Add(n, big.NewInt(int64(a.part)))
}

func (a Amount) rat() *big.Rat {
	return new(big.Rat).SetFrac(a.nanos(), new(big.Int).Mul(big.NewInt(max(1, a.unit.factor())), big.NewInt(nano)))
}

// Float is the number in its unit, for JSON; the nearest there is.
func (a Amount) Float() float64 {
	f, _ := a.rat().Float64()
	return f
}

// Number is the exact number in its unit, in decimal digits.
func (a Amount) Number() string {
	s := a.rat().FloatString(9 + 30) // a billionth of a byte has 39 decimals in GB
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// String is the number and the unit.
func (a Amount) String() string {
	return strconv.FormatFloat(a.Float(), 'g', -1, 64) + " " + string(a.unit)
}

type amountJSON struct {
	Value string `json:"value"`
	Unit  Unit   `json:"unit"`
}

// MarshalJSON writes the exact number, as text: this is how records are kept,
// not the API's form.
func (a Amount) MarshalJSON() ([]byte, error) { return json.Marshal(amountJSON{a.Number(), a.unit}) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (a *Amount) UnmarshalJSON(b []byte) error {
	var j amountJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	out, err := ParseAmount(j.Value, j.Unit)
	if err != nil {
		return err
	}
	*a = out
	return nil
}

// Amounts is what something costs, may use or uses, by key. Keys are free text.
type Amounts map[string]Amount

// Keys are the keys in order.
func (a Amounts) Keys() []string { return slices.Sorted(maps.Keys(a)) }

// Plus is the sum key by key. It is an error if two amounts of one key cannot be
// added.
func (a Amounts) Plus(b Amounts) (Amounts, error) {
	out := maps.Clone(a)
	if out == nil {
		out = Amounts{}
	}
	for _, k := range b.Keys() {
		was, ok := out[k]
		if !ok {
			out[k] = b[k]
			continue
		}
		sum, err := was.Add(b[k])
		if err != nil {
			return a, fmt.Errorf("%s: %w", k, err)
		}
		out[k] = sum
	}
	return out, nil
}

// A Quota is what may be used, and what is. Used keys without a limit are
// recorded and never refused.
type Quota struct {
	Limits Amounts `json:"limits"`
	Usage  Amounts `json:"usage"`
}

// NewQuota starts with nothing used, for each limit.
func NewQuota(limits Amounts) Quota {
	q := Quota{maps.Clone(limits), Amounts{}}
	for k, l := range limits {
		q.Usage[k] = Amount{unit: l.unit}
	}
	return q
}

// Charge is the quota with a cost used in addition. If one limit would be
// exceeded it is an error with code [QuotaError], and nothing is charged.
func (q Quota) Charge(cost Amounts) (Quota, error) {
	usage := maps.Clone(q.Usage)
	if usage == nil {
		usage = Amounts{}
	}
	for _, k := range cost.Keys() {
		was, ok := usage[k]
		if !ok {
			was = Amount{unit: cost[k].unit}
		}
		limit, limited := q.Limits[k]
		sum, err := was.Add(cost[k])
		if limited && !limit.unit.fits(cost[k].unit) {
			err = fmt.Errorf("it is limited in %s, and costs %s", limit.unit, cost[k])
		}
		if err != nil {
			return q, Errorf(QuotaError, "Not enough quota: %s: %v", k, err)
		}
		if limited && sum.Cmp(limit) > 0 {
			return q, overQuota(k, limit, was, sum)
		}
		usage[k] = sum
	}
	return Quota{q.Limits, usage}, nil
}

func overQuota(key string, limit, usage, sum Amount) *Error {
	text := func(a Amount) string { return strconv.FormatFloat(a.Float(), 'g', -1, 64) }
	e := Errorf(QuotaError, "Not enough quota: Current Limit: %s, %s, desiredUsage %s, %s", key, limit, key, sum)
	e.Data = map[string]string{}
	for name, a := range map[string]Amount{"limit": limit, "usage": usage, "newUsage": sum} {
		e.Data[name+".key"], e.Data[name+".value"], e.Data[name+".unit"] = key, text(a), string(a.unit)
	}
	return e
}

// Release is the quota with a cost used no longer. To release what was never
// charged is an error: somebody did it twice.
func (q Quota) Release(cost Amounts) (Quota, error) {
	usage := maps.Clone(q.Usage)
	for _, k := range cost.Keys() {
		was, ok := usage[k]
		if !ok {
			was = Amount{unit: cost[k].unit}
		}
		rest, err := was.Sub(cost[k])
		if err != nil {
			return q, fmt.Errorf("cannot give quota back: %s: %w", k, err)
		}
		if _, limited := q.Limits[k]; !limited && rest.IsZero() {
			delete(usage, k)
			continue
		}
		usage[k] = rest
	}
	return Quota{q.Limits, usage}, nil
}

// SubdividePercent is the key that asks for a share of every limit.
const SubdividePercent = "subdivide.percent"

// Carve is the limits of a project that asks for wanted out of the tenant's
// ticket q, and the ticket with them used. What the ticket limits the project
// must ask for too (code [InvalidResourceTicketSubdivide]).
func (q Quota) Carve(wanted Amounts) (limits Amounts, rest Quota, err error) {
	if p, ok := wanted[SubdividePercent]; ok {
		if len(wanted) > 1 || p.unit != Count || p.IsZero() || p.Cmp(Amount{whole: 100}) > 0 {
			return nil, q, Errorf(InvalidResourceTicketSubdivide, "%s must stand alone, and be more than 0 and at most 100 COUNT", SubdividePercent)
		}
		share := Amounts{}
		for k, l := range q.Limits {
			if share[k], err = l.Percent(p); err != nil {
				return nil, q, Errorf(InvalidResourceTicketSubdivide, "%s: %v", k, err)
			}
		}
		wanted = share
	}
	var missing []string
	for _, k := range q.Limits.Keys() {
		if _, ok := wanted[k]; !ok {
			missing = append(missing, k)
		}
	}
	if len(missing) > 0 {
		return nil, q, Errorf(InvalidResourceTicketSubdivide, "Missing keys not permitted [%s]", strings.Join(missing, ", "))
	}
	if rest, err = q.Charge(wanted); err != nil {
		return nil, q, err
	}
	return maps.Clone(wanted), rest, nil
}
