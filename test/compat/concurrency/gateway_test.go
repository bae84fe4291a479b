package concurrency

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// post sends JSON to the gateway and notes the answer without what names the
// server.
func (s *scene) post(path, body string) map[string]any {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.server.ClientURL+path, strings.NewReader(body))
	s.check(err, "a request")
	resp, err := http.DefaultClient.Do(req)
	s.check(err, "posting")
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.check(err, "reading the answer")
	answer := map[string]any{}
	if err := json.Unmarshal(text, &answer); err != nil {
		s.note("%s: %d, no JSON: %q", path, resp.StatusCode, text)
		return answer
	}
	s.note("%s: %d %s", path, resp.StatusCode, plain(answer))
	return answer
}

// plain is JSON in one order without ids of the server, terms and what a
// server chose.
func plain(answer map[string]any) string {
	if header, ok := answer["header"].(map[string]any); ok {
		for _, name := range []string{"cluster_id", "member_id", "raft_term"} {
			_, set := header[name].(string)
			header[name] = set
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestGateway: locks and elections in JSON, as curl asks.
func TestGateway(t *testing.T) {
	play(t, func(s *scene) {
		for id := int64(1); id <= 2; id++ {
			s.lease(id, 600)
		}
		s.post("/v3/lock/lock", fmt.Sprintf(`{"name":%q,"lease":"1"}`, b64("l")))
		s.post("/v3/lock/lock", fmt.Sprintf(`{"name":%q,"lease":1}`, b64("l")))
		s.post("/v3/lock/lock", fmt.Sprintf(`{"name":%q,"lease":99}`, b64("l")))
		s.post("/v3/lock/unlock", fmt.Sprintf(`{"key":%q}`, b64("l/1")))
		s.post("/v3/lock/unlock", `{}`)
		s.keys("l/")
		s.post("/v3/election/leader", fmt.Sprintf(`{"name":%q}`, b64("e")))
		won := s.post("/v3/election/campaign", fmt.Sprintf(`{"name":%q,"lease":"1","value":%q}`, b64("e"), b64("one")))
		leader, err := json.Marshal(won["leader"])
		s.check(err, "the leader")
		seen, err := http.Post(s.server.ClientURL+"/v3/election/observe", "application/json", strings.NewReader(fmt.Sprintf(`{"name":%q}`, b64("e"))))
		s.check(err, "observing")
		defer seen.Body.Close()
		lines := bufio.NewReader(seen.Body)
		look := func() {
			line, err := lines.ReadBytes('\n')
			s.check(err, "a line of the stream")
			var got struct{ Result map[string]any }
			s.check(json.Unmarshal(line, &got), "a line of JSON")
			s.note("observed %s", plain(got.Result))
		}
		look()
		s.post("/v3/election/proclaim", fmt.Sprintf(`{"leader":%s,"value":%q}`, leader, b64("two")))
		look()
		s.post("/v3/election/leader", fmt.Sprintf(`{"name":%q}`, b64("e")))
		s.post("/v3/election/proclaim", `{"value":"dHdv"}`)
		s.post("/v3/election/resign", fmt.Sprintf(`{"leader":%s}`, leader))
		s.post("/v3/election/resign", `{}`)
		s.keys("e/")
		out, err := exec.CommandContext(s.ctx, "curl", "-s", "-X", "POST", "-d", fmt.Sprintf(`{"name":%q,"lease":"2"}`, b64("curl")),
			s.server.ClientURL+"/v3/lock/lock").Output()
		s.check(err, "curl")
		answer := map[string]any{}
		s.check(json.Unmarshal(bytes.TrimSpace(out), &answer), "curl's JSON")
		s.note("curl: %s", plain(answer))
		// Who hangs up leaves the line.
		s.lease(3, 600)
		hasty := exec.CommandContext(s.ctx, "curl", "-s", "-m", "1", "-X", "POST", "-d", fmt.Sprintf(`{"name":%q,"lease":"3"}`, b64("curl")),
			s.server.ClientURL+"/v3/lock/lock")
		s.check(hasty.Start(), "curl")
		s.awaitKeys("curl/", 2)
		s.note("curl gives up: %v", hasty.Wait())
		s.awaitKeys("curl/", 1)
		s.keys("curl/")
	})
}
