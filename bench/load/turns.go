package load

import (
	"context"
	"time"
)

// Turn is a later request of a conversation.
type Turn struct {
	// Think is the time from the end of the answer before to this request.
	Think time.Duration
	// PromptTokens is what the user adds; the prompt has all that was said before too.
	PromptTokens, OutputTokens int
}

// talk is a conversation under way.
type talk struct {
	request Request
	turn    int    // 0 is the request itself
	past    []byte // chat: the messages so far as JSON, each with a comma after it; completions: the text
	tokens  int    // of past, as asked for
}

// carry sends the request and then the turns after it, each when its time has
// come. A turn is not sent when the one before has failed: there is no answer to
// continue from.
func (r *Runner) carry(ctx context.Context, x *exchange) {
	q := &x.talk.request
	for ok := r.perform(ctx, x); x.talk.turn < len(q.Turns); ok = r.perform(ctx, x) {
		next := x.rec.End + q.Turns[x.talk.turn].Think
		if !ok || r.o.Duration > 0 && next >= r.o.Duration || !r.sleep(ctx, next) {
			r.recorder.abandon(len(q.Turns) - x.talk.turn)
			break
		}
		r.nextTurn(x)
		x.rec.Scheduled = next
	}
	x.release()
}

// sleep waits until the given time of the run; false means ctx has ended.
func (r *Runner) sleep(ctx context.Context, until time.Duration) bool {
	timer := time.NewTimer(until - r.since())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// nextTurn makes the request that follows the answer just received.
func (r *Runner) nextTurn(x *exchange) {
	t := &x.talk
	t.past = r.appendSaid(t.past, t, x.text)
	t.tokens += t.asked().PromptTokens + t.asked().OutputTokens
	t.turn++
	x.begin(r)
}

// asked is the turn's own lengths.
func (t *talk) asked() Turn {
	if t.turn == 0 {
		return Turn{PromptTokens: t.request.PromptTokens, OutputTokens: t.request.OutputTokens}
	}
	return t.request.Turns[t.turn-1]
}

// appendSaid adds what the user said in this turn and what was answered, which is
// escaped already.
func (r *Runner) appendSaid(dst []byte, t *talk, answer []byte) []byte {
	if r.o.API == Chat {
		dst = append(dst, `{"role":"user","content":"`...)
	}
	dst = t.appendSay(dst, r.o.Seed)
	if r.o.API == Chat {
		dst = append(dst, `"},{"role":"assistant","content":"`...)
	}
	dst = append(dst, answer...)
	if r.o.API == Chat {
		dst = append(dst, `"},`...)
	}
	return dst
}

// appendSay adds the words the user says in this turn.
func (t *talk) appendSay(dst []byte, seed uint64) []byte {
	if t.turn == 0 {
		return appendPrompt(dst, seed, t.index(), t.request)
	}
	return appendWords(dst, t.asked().PromptTokens, newSource(seed, textTurn+uint64(t.turn), uint64(t.index())))
}

func (t *talk) index() int { return t.request.index }
