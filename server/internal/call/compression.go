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

// Clients may compress with gzip or deflate. Responses are then compressed too, by the compressor that holds least
// memory.
//
// gRPC itself rejects a call with an unregistered grpc-encoding before the chain sees it: without a log line or metric,
// and for Envoy's Check as an error instead of a denial. So other encodings in common use are registered too, for the
// chain to reject.
func init() {
	if err := gzip.SetLevel(stdgzip.BestSpeed); err != nil {
		panic(err)
	}
	encoding.RegisterCompressor(deflate{})
	for _, name := range refusedEncodings() {
		encoding.RegisterCompressor(refusedEncoding(name))
	}
}

// encodings lists the supported values of grpc-encoding for error texts.
const encodings = "gzip, deflate and identity"

// refusedEncodings returns names of encodings that are in use but not supported: content codings of HTTP, and those
// that gRPC libraries ship with.
func refusedEncodings() []string {
	return []string{
		"aes128gcm",
		"br",
		"brotli",
		"bzip2",
		"compress",
		"dcb",
		"dcz",
		"exi",
		"lz4",
		"lzma",
		"lzo",
		"pack200-gzip",
		"s2",
		"snappy",
		"x-compress",
		"x-gzip",
		"x-snappy-framed",
		"xz",
		"zlib",
		"zstd",
	}
}

// errEncoding returns the error for an unsupported encoding, with the code that gRPC uses for it.
func errEncoding() *tokens.Error {
	return tokens.Fail(
		fault.CodeUnimplemented,
		"ENCODING_UNSUPPORTED",
		"messages may be compressed by one of "+encodings,
	)
}

// refusedEncoding is an unsupported encoding.
type refusedEncoding string

var _ encoding.Compressor = refusedEncoding("")

var errRefusedEncoding = errors.New("this encoding is not supported")

// Name returns the value of grpc-encoding.
func (e refusedEncoding) Name() string { return string(e) }

// Compress returns an error: no response uses this encoding.
func (refusedEncoding) Compress(io.Writer) (io.WriteCloser, error) { return nil, errRefusedEncoding }

// Decompress returns an error.
func (refusedEncoding) Decompress(io.Reader) (io.Reader, error) { return nil, errRefusedEncoding }

// encodingRefused reports whether the messages of a stream are in an unsupported encoding. If so, responses are sent
// uncompressed.
func encodingRefused(s messageStream) bool {
	name := s.RecvCompress()
	if name == "" {
		return false
	}
	if _, refused := encoding.GetCompressor(name).(refusedEncoding); !refused {
		return false
	}
	_ = s.SetSendCompress(encoding.Identity) // it fails only if the response has begun, and it has not
	return true
}

// deflate is the zlib format (RFC 1950), which gRPC and HTTP call deflate.
type deflate struct{}

var _ encoding.Compressor = deflate{}

// Name returns the value of grpc-encoding.
func (deflate) Name() string { return "deflate" }

var (
	deflaters = sync.Pool{New: func() any {
		w, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
		if err != nil {
			panic(err)
		}
		return w
	}}
	inflaters sync.Pool // of io.ReadCloser that implement zlib.Resetter
)

// Compress returns a writer whose Close returns it to the pool.
func (deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	z, _ := deflaters.Get().(*zlib.Writer)
	z.Reset(w)
	return &deflating{z}, nil
}

type deflating struct{ *zlib.Writer }

// Close ends the compressed text.
func (d *deflating) Close() error {
	defer deflaters.Put(d.Writer)
	return d.Writer.Close() //nolint:wrapcheck // gRPC says what failed
}

// Decompress returns a reader whose Close returns it to the pool.
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

// Close returns the reader to the pool.
func (i *inflating) Close() error {
	defer inflaters.Put(i.ReadCloser)
	return i.ReadCloser.Close() //nolint:wrapcheck // gRPC says what failed
}
