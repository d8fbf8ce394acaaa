package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func withoutHeavy() (names []string) {
	list, _ := targets(&Options{})
	for _, t := range list {
		names = append(names, t.name())
	}
	return names
}

// A full run ends within an hour, a quick one within five minutes; every bar is measured in both, but for what takes
// two minutes to show. Runs keep to their plans or are faster: one of 54 min 47 s took 48 min 38 s.
func TestPlanFits(t *testing.T) {
	for quick, limit := range map[bool]time.Duration{false: 58 * time.Minute, true: 5 * time.Minute} {
		o := Options{Quick: quick}
		o.Defaults()
		steps := plan(&o, withoutHeavy())
		total := o.total(steps)
		t.Logf("quick %v: %d cells, %v", quick, len(steps), total)
		if total > limit {
			t.Errorf("quick %v: %d cells take %v", quick, len(steps), total)
		}
		times := map[string]int{}
		for _, s := range steps {
			times[s.job.Name+s.target]++
		}
		for _, j := range Jobs() {
			for _, g := range j.Goals {
				if g.Ratio > 0 && !j.Soak && g.Base != cephEC && times[j.Name+g.Target] != o.Rounds {
					t.Errorf("quick %v: %s is done %d times on %s", quick, j.Name, times[j.Name+g.Target], g.Target)
				}
				if !quick && g.Base != cephEC && times[j.Name+g.Target] == 0 {
					t.Errorf("%s is never done on %s", j.Name, g.Target)
				}
			}
		}
	}
}

func TestPlanWithPeersFits(t *testing.T) {
	o := Options{Peers: true}
	o.Defaults()
	if total := o.total(plan(&o, everyone())); total > 90*time.Minute {
		t.Errorf("with all peers it takes %v", total)
	}
}

// Each round begins with another target.
func TestTurns(t *testing.T) {
	o := Options{Rounds: 3}
	o.Defaults()
	first := map[string]bool{}
	last := ""
	for _, s := range plan(&o, withoutHeavy()) {
		if s.job.Name == coldRead && last != s.job.Name {
			first[s.target] = true
		}
		last = s.job.Name
	}
	if len(first) != 3 {
		t.Errorf("three rounds begin with %v", first)
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.plan(4, 4*time.Minute)
	p.start("a job")
	p.began = time.Now().Add(-2 * time.Minute) // twice as long as planned
	p.step(1, time.Minute)
	if got := p.where(); got != "1/4, 4 min 30 s left" && got != "1/4, 4 min 29 s left" {
		t.Error(got)
	}
	p.say("a line of %d", 1)
	if out.String() != "a line of 1\n" {
		t.Errorf("what is no terminal is written %q", out.String())
	}
	p.live = true
	p.start("the next")
	if s := out.String(); !strings.Contains(s, "the next, 0 s") || !strings.Contains(s, "[1/4, ") {
		t.Errorf("the live line is %q", s)
	}
	if left := remaining(0, 0, time.Minute); left != time.Minute {
		t.Error(left)
	}
}
