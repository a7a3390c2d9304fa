package java

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patd/internal/proctest"
	"patd/internal/sdktest"
)

// TestFromThePageAboutSpringToAProtectedRoute compiles the program of docs/frameworks/spring.md with the starter and
// what Maven resolved for it, and runs it with a real patd.
func TestFromThePageAboutSpringToAProtectedRoute(t *testing.T) {
	library(t)
	const page = "../../docs/frameworks/spring.md"
	s := sdktest.New(t, binary(t))
	for _, language := range []string{"java", "yaml", "xml"} {
		sdktest.WriteBlocks(t, page, language, s.Dir)
	}
	path, err := os.ReadFile("spring-boot-starter/target/classpath")
	if err != nil {
		t.Fatal(err)
	}
	parts := append(strings.Split(string(path), ":"), "core/target/classes", "spring-boot-starter/target/classes")
	for i, part := range parts {
		if parts[i], err = filepath.Abs(part); err != nil {
			t.Fatal(err)
		}
	}
	everything := strings.Join(append(parts, s.Dir), ":")
	// Boot's Maven plugin has the compiler keep the names of parameters.
	if out, err := sdktest.Run(
		s.Dir,
		nil,
		"javac",
		"-parameters",
		"-d",
		".",
		"-cp",
		everything,
		"Reports.java",
	); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := proctest.FreeAddr(t)
	port := addr[strings.LastIndex(addr, ":")+1:]
	cmd := exec.Command("java", append(small, "-cp", everything, "com.example.reports.Reports")...)
	cmd.Env = append(os.Environ(), s.Env("SERVER_ADDRESS=127.0.0.1", "SERVER_PORT="+port)...)
	s.Start(cmd, filepath.Join(s.Dir, "server.log"), 143) // Java's own, after SIGTERM
	s.Guards("http://"+addr+"/reports", "hello demo", "")
	s.Calls(page, "sh spring", "8080", addr, "hello demo")
}

// TestThePageAboutSpringNamesTheVersionThatIsTested compares the pages' versions with that of pom.xml.
func TestThePageAboutSpringNamesTheVersionThatIsTested(t *testing.T) {
	t.Parallel()
	pom, err := os.ReadFile("pom.xml")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(pom), "<spring-boot.version>")
	version, _, ok := strings.Cut(rest, "<")
	block := string(sdktest.Blocks(t, "../../docs/frameworks/spring.md", "xml")["pom.xml"])
	if !ok || !strings.Contains(block, "<version>"+version+"</version>") {
		t.Errorf("the page does not name Spring Boot %q", version)
	}
}
