// Command release writes what a release has beside its archives: a list of the modules that
// are linked (sbom, CycloneDX) and a container image (image, an OCI archive). Neither needs
// an engine or a network, and the same input gives the same bytes.
//
//	go run -C tools ./release sbom -version V -time UNIX -out FILE
//	go run -C tools ./release image -version V -time UNIX -out FILE ARCH=FOLDER...
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "release: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("sbom or image?")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	version := f.String("version", "", "the version")
	unix := f.Int64("time", 0, "the commit's time, in seconds from 1970")
	out := f.String("out", "", "the file to write")
	root := f.String("root", "..", "the repository")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	at := time.Unix(*unix, 0).UTC()
	switch args[0] {
	case "sbom":
		return sbom(*root, *version, at, *out)
	case "image":
		return image(*version, at, *out, f.Args())
	}
	return fmt.Errorf("%q is neither sbom nor image", args[0])
}
