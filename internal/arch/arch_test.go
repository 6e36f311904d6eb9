package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// may lists the packages of bootd and, for each, those of bootd that it may
// import. A package that is not listed may not exist.
var may = map[string][]string{
	// The boot side: nouns, then the protocols, none of which knows another.
	"boot":       {},
	"boot/lease": {"boot"},
	"boot/dhcp":  {"boot", "boot/lease"},
	"boot/tftp":  {"boot"},
	"boot/ra":    {},
	"boot/ipxe":  {"boot"},
	"ignition":   {"boot"},
	"assets":     {"boot"},

	// What is behind it.
	"internal/config":      {"boot"},
	"internal/store":       {},
	"internal/timeline":    {"boot", "internal/store"},
	"internal/override":    {"boot", "internal/store"},
	"internal/power":       {"boot"},
	"internal/swarm":       {"boot"},
	"internal/api":         {"boot", "internal/openapi"},
	"internal/openapi":     {},
	"internal/doctor":      {},
	"internal/metrics":     {"boot"},
	"internal/fleet":       {"boot"},
	"internal/task":        {"internal/fleet", "internal/store"},
	"internal/controller":  {"boot", "internal/fleet", "internal/store", "internal/task", "internal/place"},
	"internal/photon":      {"boot", "internal/controller", "internal/fleet", "internal/store", "internal/photon/wire", "internal/openapi"},
	"internal/photon/wire": {},
	"internal/place":       {"internal/fleet"},
	"internal/esx":         {"boot", "internal/fleet", "internal/esx/vmdk"},
	"internal/esx/vmdk":    {},
	"internal/spool":       {"internal/fleet", "internal/esx/vmdk"},
	"internal/recipe":      {"boot", "internal/fleet"},
	"internal/client":      {"boot", "internal/api", "internal/photon/wire"},
	"internal/web":         {"boot"},
	"internal/lab":         {"boot"},
	"internal/arch":        {},

	// The only place that knows everything.
	"cmd/bootd": {
		"boot", "boot/lease", "boot/dhcp", "boot/tftp", "boot/ra", "boot/ipxe", "ignition", "assets",
		"internal/config", "internal/store", "internal/timeline", "internal/override", "internal/power", "internal/swarm",
		"internal/api", "internal/client", "internal/metrics", "internal/doctor", "internal/lab", "internal/web",
		"internal/controller", "internal/esx", "internal/fleet", "internal/photon", "internal/photon/wire", "internal/recipe", "internal/spool", "internal/task",
	},
}

// only names the one package that may import a large dependency, so that
// replacing the dependency touches one folder. Keys are import path prefixes.
var only = map[string][]string{
	"github.com/insomniacslk/dhcp":         {"boot/dhcp"},
	"github.com/pin/tftp":                  {"boot/tftp"},
	"github.com/coreos/butane":             {"ignition"},
	"github.com/coreos/ignition":           {"ignition"},
	"github.com/coreos/stream-metadata-go": {"assets"},
	"github.com/ProtonMail/go-crypto":      {"assets"},
	"github.com/docker/docker":             {"internal/swarm"},
	"github.com/bmc-toolbox/bmclib":        {"internal/power"},
	"github.com/stmcginnis/gofish":         {"internal/power"},
	"go.etcd.io/etcd":                      {"internal/store"},
	"github.com/goccy/go-yaml":             {"internal/config", "internal/lab"},
	"github.com/fsnotify/fsnotify":         {"internal/config"},
	"github.com/vishvananda/netlink":       {"internal/lab"},
	"github.com/vishvananda/netns":         {"internal/lab"},
	"github.com/vmware/govmomi":            {"internal/esx"},
	"github.com/spf13/cobra":               {"cmd/bootd"},
	"github.com/vbauerster/mpb":            {"cmd/bootd"},
	"github.com/coreos/go-systemd":         {"cmd/bootd"},
	"github.com/prometheus/client_golang":  {"internal/metrics"},
	"github.com/getkin/kin-openapi":        {"internal/openapi/openapitest"},
}

// A goPackage is what the rules look at: imports of its non-test files, and
// of its tests apart.
type goPackage struct {
	imports, testImports map[string][]string // import path to files
	files                map[string]*ast.File
	documented           bool
}

func load(t *testing.T) map[string]*goPackage {
	t.Helper()
	pkgs := map[string]*goPackage{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(rel)
		g := pkgs[dir]
		if g == nil {
			g = &goPackage{map[string][]string{}, map[string][]string{}, map[string]*ast.File{}, false}
			pkgs[dir] = g
		}
		imports := g.imports
		if strings.HasSuffix(name, "_test.go") {
			imports = g.testImports
		} else {
			g.files[rel] = f
			g.documented = g.documented || f.Doc != nil
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[imp] = append(imports[imp], rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 5 {
		t.Fatalf("found only %d packages under %s; is this test still two folders below the root?", len(pkgs), root)
	}
	return pkgs
}

// allowed also covers folders below a listed package, such as test servers.
func allowed(dir string) ([]string, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		if l, ok := may[d]; ok {
			if d != dir {
				l = append(slices.Clone(l), d)
			}
			return l, true
		}
	}
	return nil, false
}

func TestImportsPointOneWay(t *testing.T) {
	for dir, p := range load(t) {
		list, ok := allowed(dir)
		if !ok {
			t.Errorf("package %s is not in the table of %s: say what it may import", dir, "internal/arch")
			continue
		}
		for imp, files := range p.imports {
			of, ours := strings.CutPrefix(imp, "bootd/")
			if ours && !slices.Contains(list, of) {
				t.Errorf("%s imports %s, which %s may not (it may import %v)", files[0], imp, dir, list)
			}
		}
	}
}

func TestLargeDependenciesHaveOneOwner(t *testing.T) {
	for dir, p := range load(t) {
		for imp, files := range p.imports {
			for prefix, owners := range only {
				if imp != prefix && !strings.HasPrefix(imp, prefix+"/") {
					continue
				}
				if !slices.ContainsFunc(owners, func(o string) bool { return dir == o || strings.HasPrefix(dir, o+"/") }) {
					t.Errorf("%s imports %s, which belongs to %v", files[0], imp, owners)
				}
			}
		}
	}
}

func TestNoInitAndEveryPackageExplained(t *testing.T) {
	pkgs := load(t)
	for _, dir := range slices.Sorted(maps.Keys(pkgs)) {
		p := pkgs[dir]
		if len(p.files) > 0 && !p.documented {
			t.Errorf("package %s has no package comment", dir)
		}
		for name, f := range p.files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function: what the program consists of must be readable in cmd/bootd", name)
				}
			}
		}
	}
}

// TestOnlyMainExits keeps flags, the environment and the exit status in one
// place.
func TestOnlyMainExits(t *testing.T) {
	for dir, p := range load(t) {
		if dir == "cmd/bootd" {
			continue
		}
		for name, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, ok := sel.X.(*ast.Ident)
				if !ok {
					return true
				}
				switch x.Name + "." + sel.Sel.Name {
				case "os.Exit", "log.Fatal", "log.Fatalf", "os.Getenv", "os.LookupEnv", "flag.Parse", "slog.Default":
					t.Errorf("%s calls %s.%s; only cmd/bootd may", name, x.Name, sel.Sel.Name)
				}
				return true
			})
		}
	}
}
