package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Table prints rows under a header, in columns.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, v := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, Cell(v))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// tablePage is how many rows of a long table are held, and aligned with each other.
const tablePage = 1000

// LongTable prints rows as they come: there may be more of them than there is memory for.
type LongTable struct {
	w    io.Writer
	page [][]string
}

// NewLongTable returns a table with a header and no rows. Flush has to be called at its end.
func NewLongTable(w io.Writer, header ...string) *LongTable {
	return &LongTable{w: w, page: [][]string{header}}
}

// Add adds a row.
func (t *LongTable) Add(row ...string) error {
	if t.page = append(t.page, row); len(t.page) < tablePage {
		return nil
	}
	return t.Flush()
}

// Flush prints the rows that were not printed yet.
func (t *LongTable) Flush() error {
	if len(t.page) == 0 {
		return nil
	}
	err := Table(t.w, t.page[0], t.page[1:])
	t.page = t.page[:0]
	return err
}

// Field is one line of a record: its name and its value.
type Field [2]string

// Record prints the fields that have a value, a line each.
func Record(w io.Writer, fields []Field) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range fields {
		if f[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", f[0], Cell(f[1]))
		}
	}
	return t.Flush()
}

// Cell fits a text for one cell on a terminal: characters that could move the cursor or turn the text become spaces.
func Cell(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return ' '
		}
		return r
	}, s)
}

// Moment formats a time; absent: as the given word.
func Moment(t *timestamppb.Timestamp, absent string) string {
	if t == nil {
		return absent
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// OrDash returns a dash for an empty cell.
func OrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Yes formats a truth value.
func Yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Counted formats a number of things, in the singular for one.
func Counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
