package boot

import (
	"os"
	"reflect"
	"testing"
)

func TestOption(t *testing.T) {
	const cmdline = "quiet woodlot.control=serial xwoodlot.control=no woodlot.control=vsock panic=-1\n"
	if got := option(cmdline, "woodlot.control"); got != "vsock" {
		t.Errorf("%q", got)
	}
	if got := option(cmdline, "quiet"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestParseList(t *testing.T) {
	for content, want := range map[string][]string{
		"a.ko\n\n# b\n c.ko \n": {"a.ko", "c.ko"},
		"":                      nil,
		"../x.ko\n":             nil,
	} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString(content)
		_, _ = f.Seek(0, 0)
		got, err := parseList(f)
		_ = f.Close()
		if !reflect.DeepEqual(got, want) || (err != nil) != (content == "../x.ko\n") {
			t.Errorf("%q: %v, %v", content, got, err)
		}
	}
}
