package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"

	"vpnd/tools/modules"
)

// sbom lists the modules of the programs for Linux. Its serial number is derived from the
// version, so that the same commit gives the same bytes.
func sbom(root, version string, at time.Time, out string) error {
	list, err := modules.Linked(root, "linux/amd64", "linux/arm64", "linux/arm")
	if err != nil {
		return err
	}
	h := sha256.Sum256([]byte("vpnd " + version))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562)
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: at.Format(time.RFC3339),
		Component: &cyclonedx.Component{BOMRef: "vpnd", Type: cyclonedx.ComponentTypeApplication, Name: "vpnd", Version: version},
	}
	var components []cyclonedx.Component
	for _, m := range list {
		purl := "pkg:golang/" + m.Path + "@" + m.Version
		c := cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl}
		if sum, ok := strings.CutPrefix(m.Sum, "h1:"); ok {
			if b, err := base64.StdEncoding.DecodeString(sum); err == nil {
				c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(b)}}
			}
		}
		components = append(components, c)
	}
	bom.Components = &components
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return fmt.Errorf("writing the list of modules: %w", err)
	}
	return f.Close()
}
