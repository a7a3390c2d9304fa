package call

import (
	stdgzip "compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"

	"patd/server/internal/fault"
	"patd/tokens"
)

// Callers may compress by gzip or deflate, and their answers are then compressed too: by the compressor that holds least memory.
//
// gRPC itself refuses a call whose grpc-encoding has a name that is not registered, before the chain sees it: no log line, no
// metric, and for Envoy's Check an error in place of a denial. So the names that are in use elsewhere are registered, too, for
// the chain to refuse.
func init() {
	if err := gzip.SetLevel(stdgzip.BestSpeed); err != nil {
		panic(err)
	}
	encoding.RegisterCompressor(deflate{})
	for _, name := range refusedEncodings() {
		encoding.RegisterCompressor(refusedEncoding(name))
	}
}

// encodings is what grpc-encoding may be, for a caller to read.
const encodings = "gzip, deflate and identity"

// refusedEncodings are names of encodings that are in use, none of which is supported: content codings of HTTP, and what libraries
// for gRPC come with.
func refusedEncodings() []string {
	return []string{
		"aes128gcm", "br", "brotli", "bzip2", "compress", "dcb", "dcz", "exi", "lz4", "lzma", "lzo", "pack200-gzip", "s2", "snappy",
		"x-compress", "x-gzip", "x-snappy-framed", "xz", "zlib", "zstd",
	}
}

// errEncoding is the refusal of an encoding, with the code that gRPC has for it.
func errEncoding() *tokens.Error {
	return tokens.Fail(fault.CodeUnimplemented, "ENCODING_UNSUPPORTED", "messages may be compressed by one of "+encodings)
}

// refusedEncoding stands for an encoding that is not supported.
type refusedEncoding string

var _ encoding.Compressor = refusedEncoding("")

var errRefusedEncoding = errors.New("this encoding is not supported")

// Name is what grpc-encoding says.
func (e refusedEncoding) Name() string { return string(e) }

// Compress returns an error: no answer is sent so.
func (refusedEncoding) Compress(io.Writer) (io.WriteCloser, error) { return nil, errRefusedEncoding }

// Decompress returns an error.
func (refusedEncoding) Decompress(io.Reader) (io.Reader, error) { return nil, errRefusedEncoding }

// encodingRefused reports whether the messages of a stream are in an encoding that is not supported. Answers are then sent as they
// are.
func encodingRefused(s messageStream) bool {
	name := s.RecvCompress()
	if name == "" {
		return false
	}
	if _, refused := encoding.GetCompressor(name).(refusedEncoding); !refused {
		return false
	}
	_ = s.SetSendCompress(encoding.Identity) // it fails if the answer has begun, and nothing has
	return true
}

// deflate is the zlib format (RFC 1950), which gRPC and HTTP call deflate.
type deflate struct{}

var _ encoding.Compressor = deflate{}

// Name is what grpc-encoding says.
func (deflate) Name() string { return "deflate" }

var (
	deflaters = sync.Pool{New: func() any {
		w, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
		if err != nil {
			panic(err)
		}
		return w
	}}
	inflaters sync.Pool // of io.ReadCloser that are zlib.Resetter
)

// Compress returns a writer whose Close gives its memory back.
func (deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	z, _ := deflaters.Get().(*zlib.Writer)
	z.Reset(w)
	return &deflating{z}, nil
}

type deflating struct{ *zlib.Writer }

// Close ends the text.
func (d *deflating) Close() error {
	defer deflaters.Put(d.Writer)
	return d.Writer.Close() //nolint:wrapcheck // gRPC says what failed
}

// Decompress returns a reader whose Close gives its memory back.
func (deflate) Decompress(r io.Reader) (io.Reader, error) {
	if z, ok := inflaters.Get().(io.ReadCloser); ok {
		if err := z.(zlib.Resetter).Reset(r, nil); err != nil { //nolint:forcetypeassert // zlib documents it
			inflaters.Put(z)
			return nil, fmt.Errorf("read what is deflated: %w", err)
		}
		return &inflating{z}, nil
	}
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("read what is deflated: %w", err)
	}
	return &inflating{z}, nil
}

type inflating struct{ io.ReadCloser }

// Close gives the reader back.
func (i *inflating) Close() error {
	defer inflaters.Put(i.ReadCloser)
	return i.ReadCloser.Close() //nolint:wrapcheck // gRPC says what failed
}
