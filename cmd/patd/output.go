package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"patd/tokens"
)

// json prints a value, indented.
func (c *command) json(v any) error {
	enc := json.NewEncoder(c.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// message prints an answer as REST gives it, indented.
func (c *command) message(m proto.Message) error {
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(c.Stdout)
	return err
}

// table prints rows under a header, in columns.
func table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, v := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell(v))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// field is one line of a record.
type field struct{ name, value string }

// record prints the fields that have a value, a line each.
func record(w io.Writer, fields []field) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range fields {
		if f.value != "" {
			fmt.Fprintf(t, "%s\t%s\n", f.name, cell(f.value))
		}
	}
	return t.Flush()
}

// cell makes a text fit for one cell on a terminal: whatever could move the cursor or turn the text is a space.
func cell(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return ' '
		}
		return r
	}, s)
}

// moment writes a time; absent: with the given word.
func moment(t *timestamppb.Timestamp, absent string) string {
	if t == nil {
		return absent
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// orDash shows that a cell is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// yes writes whether something is so.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// explain is the text of an error for whoever runs the command.
func explain(err error) string {
	var own *tokens.Error
	if !errors.As(err, &own) || own.Code == tokens.CodeInternal {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	text := own.Reason + ": " + own.Message
	for i, v := range own.Violations {
		if i > 0 {
			text += "; " + v.Field + ": " + v.Description
		}
	}
	if own.Cause != nil {
		text += ": " + own.Cause.Error()
	}
	return strings.ReplaceAll(text, "\n", "; ")
}
