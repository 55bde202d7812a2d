// Package profile reads Docker's default seccomp profile, as its Go module has it, for the generator and its test.
// The agent itself does not contain it.
package profile

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/profiles/seccomp"
)

// ABI is a libseccomp architecture and its system call numbers.
type ABI struct {
	Name   string
	Audit  uint32
	Offset uint32
	Narrow bool
	Calls  map[string]uint32
}

// Machines lists the ABIs of each Go architecture, the native one first.
func Machines() (map[string][]ABI, error) {
	tables := map[string]map[string]uint32{}
	for _, arch := range []string{"amd64", "386", "arm64", "arm"} {
		calls, err := readTable(arch)
		if err != nil {
			return nil, err
		}
		tables[arch] = calls
	}
	// libseccomp calls arm64's number 79 by its x86 name.
	if nr, ok := tables["arm64"]["fstatat"]; ok {
		tables["arm64"]["newfstatat"] = nr
	}
	for name, nr := range armPrivate {
		tables["arm"][name] = nr
	}
	return map[string][]ABI{
		"amd64": {
			{Name: "X86_64", Audit: 0xc000003e, Calls: tables["amd64"]},
			{Name: "X32", Audit: 0xc000003e, Offset: 0x40000000, Narrow: true, Calls: x32(tables["amd64"])},
			{Name: "X86", Audit: 0x40000003, Narrow: true, Calls: tables["386"]},
		},
		"arm64": {
			{Name: "AARCH64", Audit: 0xc00000b7, Calls: tables["arm64"]},
			{Name: "ARM", Audit: 0x40000028, Narrow: true, Calls: tables["arm"]},
		},
	}, nil
}

// armPrivate are __ARM_NR_ numbers (arch/arm/include/uapi/asm/unistd.h).
var armPrivate = map[string]uint32{
	"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005,
}

// x32Own are the calls with an x32 number of their own, in order from 512 (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Own = strings.Fields(`rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace
	rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list
	get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv
	process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2`)

// not in x32 ("64" in syscall_64.tbl, no x32 twin).
var notX32 = strings.Fields(`uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area
	get_thread_area epoll_ctl_old epoll_wait_old vserver`)

func x32(amd64 map[string]uint32) map[string]uint32 {
	calls := map[string]uint32{}
	for name, nr := range amd64 {
		if !slices.Contains(notX32, name) {
			calls[name] = nr
		}
	}
	for i, name := range x32Own {
		calls[name] = uint32(512 + i)
	}
	return calls
}

var sysLine = regexp.MustCompile(`^\s*SYS_([A-Z0-9_]+)\s*=\s*([0-9]+)`)

func readTable(arch string) (map[string]uint32, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return nil, fmt.Errorf("find golang.org/x/sys: %w", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	calls := map[string]uint32{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m := sysLine.FindStringSubmatch(lines.Text())
		if m == nil || m[1] == "SYSCALL_MASK" {
			continue
		}
		nr, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			return nil, err
		}
		calls[strings.ToLower(m[1])] = uint32(nr)
	}
	return calls, lines.Err()
}

// Default is Docker's profile as it stands in the module.
func Default() *moby.Seccomp { return moby.DefaultProfile() }

// ForArch tells whether a rule of the profile stands for a Go architecture; its capabilities are the caller's matter.
func ForArch(call *moby.Syscall, goarch string) bool {
	if e := call.Excludes; e != nil && slices.Contains(e.Arches, goarch) {
		return false
	}
	if i := call.Includes; i != nil && len(i.Arches) > 0 && !slices.Contains(i.Arches, goarch) {
		return false
	}
	return true
}
