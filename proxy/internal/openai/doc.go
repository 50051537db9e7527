// Package openai reads from an OpenAI-shaped request what lbd needs to route it, without decoding it: the model, whether
// the answer streams, the bound on its length, and where the prompt lies in the body. A [Peek] is a handful of byte
// offsets into a body that stays exactly as it came; nothing is copied and nothing is allocated. [Peek.Preamble] is what a template
// renders before the prompt, tools first of all: without it two requests with other tools would seem to share a prefix.
//
// The invariant: the model lbd routes by is the model vLLM reads. vLLM decodes JSON with Python's json.loads and forms
// with starlette and python-multipart, so those decide what a doubtful body means: the last of several equal keys wins,
// keys may be written with escapes and are case sensitive, NaN and Infinity are numbers, only the top level counts. What
// two versions of those libraries read differently is refused instead of guessed, because a body whose model lbd and
// vLLM disagree about is a way around every rule lbd holds per model.
//
//	err := p.ReadJSON(body) // p is an openai.Peek
//	if err != nil {
//		return err // "body is not JSON at byte 17: want a value"
//	}
//	replicas := snapshot.Model(p.ModelBytes(body))
//
// # What is checked in a JSON body, and what is not
//
// The grammar is checked to the last byte: one object, brackets that match, colons, commas, numbers and literals as
// json.loads takes them, strings that end, nothing but white space behind. A body cut short anywhere, or one with
// something glued on, is refused. The value of model is checked whole: it must be null, which is as if it were absent,
// or a string of valid UTF-8 with valid escapes, no raw control characters and no unpaired surrogates (Python reads
// those, pydantic then refuses them).
//
// Inside every other string only the closing quote is looked for. lbd therefore passes on, and vLLM answers 400 to:
//
//   - bad escapes, raw control characters and bad UTF-8 in strings other than the model;
//   - integers of more than 4,300 digits (Python's int limit);
//   - nesting beyond Python's recursion limit, up to [MaxDepth]; deeper is refused here.
//
// Stricter than json.loads(bytes): a byte order mark, UTF-16 and UTF-32 are [ErrEncoding].
//
// # What is refused in a form
//
// The reading that starlette gives is followed (last field of a name wins, a part with a filename is a file), as RFC 7578
// allows. Refused because readers differ: dispositions other than form-data, name* parameters, a parameter given twice, two
// Content-Disposition headers, white space behind a boundary, and charsets other than UTF-8.
package openai
