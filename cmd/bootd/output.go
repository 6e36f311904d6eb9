package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"gopkg.in/yaml.v3"
)

// outputs are the values of --output.
var outputs = []string{"table", "wide", "json", "yaml"}

// choose sets how results are written. Whatever is written as JSON can be
// written as YAML, and a wide table is a table.
func (a *app) choose(output string) error {
	if err := oneOf("output", output, outputs...); err != nil {
		return err
	}
	a.format, a.wide, a.yaml = output, false, false
	switch output {
	case "wide":
		a.format, a.wide = "table", true
	case "yaml":
		a.format, a.yaml = "json", true
	}
	return nil
}

// json writes v for programs, as indented JSON or as YAML.
func (a *app) json(v any) error {
	if a.yaml {
		return a.asYAML(v)
	}
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonLine writes v as JSON in one line, or as a document of YAML, for streams.
func (a *app) jsonLine(v any) error {
	if a.yaml {
		if _, err := fmt.Fprintln(a.out, "---"); err != nil {
			return err
		}
		return a.asYAML(v)
	}
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// asYAML writes what v is as JSON, with the same keys in the same order.
func (a *app) asYAML(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	n, err := yamlNode(d)
	if err != nil {
		return err
	}
	e := yaml.NewEncoder(a.out)
	e.SetIndent(2)
	return errors.Join(e.Encode(n), e.Close())
}

// yamlNode reads the next value of JSON.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{}
	switch t := t.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for d.More() { // keys and values of an object alternate
			item, err := yamlNode(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, item)
		}
		_, err = d.Token() // the end of it
		return n, err
	case json.Number:
		*n = yaml.Node{Kind: yaml.ScalarNode, Value: t.String()}
	case string:
		// It is quoted if a reader of YAML 1.1 could take it for something else,
		// such as on, or a hardware address of nothing but digits.
		// The library writes a merge key, and lines of nothing but space, so that
		// they are read as something else.
		body := strings.TrimSuffix(t, "\n")
		if t == "<<" || body != strings.TrimSpace(body) || body == "" {
			*n = yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: t}
			return n, nil
		}
		return n, n.Encode(t)
	default:
		return n, n.Encode(t)
	}
	return n, nil
}

// wideTable writes a table of which only -o wide shows the columns from narrow on.
func (a *app) wideTable(narrow int, header []string, rows [][]string) error {
	if a.wide {
		return a.table(header, rows)
	}
	short := make([][]string, len(rows))
	for i, r := range rows {
		short[i] = r[:narrow]
	}
	return a.table(header[:narrow], short)
}

// table writes rows under a header, in columns. An empty cell is shown as a
// dash, so that columns can be cut by scripts too.
func (a *app) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, c := range r {
			cells[i] = c
			if c == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// ago writes how long before now t was, in the largest unit that says enough.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return short(now.Sub(t)) + " ago"
}

// short writes d in one or two units: 850ms, 12.3s, 4m10s, 3h05m, 12d.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// size writes n bytes with a binary unit: 512 B, 14.2 MiB.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := int64(unit), 0
	for m := n / unit; m >= unit; m /= unit {
		div *= unit
		exp++
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}
