package user

import (
	"reflect"
	"strings"
	"testing"
)

const (
	passwd = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:1000:1000::/home/www:/bin/sh\nbare:x:7:8\n12:x:13:13::/twelve:\nbad:x:abc:1::/:\n"
	group  = "root:x:0:\nwww:x:1000:\nextra:x:2000:www, root\nother:x:3000:nobody\nbad:x:zz:www\n"
)

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		spec string
		want Identity
		fail string
	}{
		{"", Identity{0, 0, []uint32{0, 2000}, "/root"}, ""},
		{"root", Identity{0, 0, []uint32{0, 2000}, "/root"}, ""},
		{"www", Identity{1000, 1000, []uint32{1000, 2000}, "/home/www"}, ""},
		{"1000", Identity{1000, 1000, []uint32{1000, 2000}, "/home/www"}, ""},
		{"www:other", Identity{1000, 3000, []uint32{3000}, "/home/www"}, ""},
		{"www:42", Identity{1000, 42, []uint32{42}, "/home/www"}, ""},
		{"5000", Identity{5000, 0, []uint32{0}, "/"}, ""},
		{"5000:6000", Identity{5000, 6000, []uint32{6000}, "/"}, ""},
		{":other", Identity{0, 3000, []uint32{3000}, "/root"}, ""},
		{"bare", Identity{7, 8, []uint32{8}, "/"}, ""},
		{"12", Identity{12, 0, []uint32{0}, "/"}, ""}, // a number is a uid, though a user is called so
		{"ghost", Identity{}, "unable to find user ghost: no matching entries in passwd file"},
		{"bad", Identity{}, "unable to find user bad"},
		{"www:ghosts", Identity{}, "unable to find group ghosts: no matching entries in group file"},
		{"4294967295", Identity{}, "uids and gids must be in range 0-2147483647"},
		{"www:99999999999", Identity{}, "uids and gids must be in range"},
		{"-1", Identity{}, "unable to find user -1"},
	} {
		got, err := resolve(c.spec, strings.NewReader(passwd), strings.NewReader(group))
		switch {
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
			t.Errorf("%q: error %v, want %q", c.spec, err, c.fail)
		case c.fail == "" && (err != nil || !reflect.DeepEqual(got, c.want)):
			t.Errorf("%q: %+v, %v", c.spec, got, err)
		}
	}
}

func TestResolveWithoutFiles(t *testing.T) {
	got, err := resolve("", emptyFile{}, emptyFile{})
	if err != nil || !reflect.DeepEqual(got, Identity{Groups: []uint32{0}, Home: "/"}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHostileFilesAreBounded(t *testing.T) {
	if _, err := resolve("x", strings.NewReader(strings.Repeat("a", maxLine+1)), emptyFile{}); err == nil {
		t.Error("an endless line was read")
	}
	if _, err := resolve("x", strings.NewReader(strings.Repeat("\n", maxEntries+1)), emptyFile{}); err == nil {
		t.Error("endless lines were read")
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	if _, err := open("/dev/null"); err == nil {
		t.Error("a device was opened")
	}
	f, err := open("/no/such/file")
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestNames(t *testing.T) {
	names := Names(strings.NewReader("root:x:0:0:root:/root:/bin/sh\n# no user\ntoor:x:0:0\n www:x:33:33\nbad:x:y:1\nshort:x\n" + strings.Repeat("x", 65) + ":x:1:1\n"))
	if len(names) != 2 || names[0] != "root" || names[33] != "www" {
		t.Error(names)
	}
	if names := Names(strings.NewReader(strings.Repeat("x", maxLine+1))); len(names) != 0 {
		t.Error(names)
	}
}
