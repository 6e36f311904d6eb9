package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"bootd/internal/api"
	"bootd/internal/photon"
)

func (a *app) openAPICommand() *cobra.Command {
	apis := map[string]func(version string) (json.RawMessage, error){"bootd": api.Document, "photon": photon.Document}
	return &cobra.Command{
		Use: "openapi [bootd|photon]", Short: "the description of the API, for programs",
		Long: `Openapi prints a document in the words of OpenAPI 3.0, from which clients can be
generated: of what the server's socket answers below /v1, or of Photon Controller's
API as far as bootd has it. The server answers with them at /openapi.json and
/openapi-photon.json.`,
		Example:   "  bootd openapi > bootd.json\n  bootd openapi photon -o yaml",
		ValidArgs: []string{"bootd", "photon"},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly("API")(c, args)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			name := "bootd"
			if len(args) > 0 {
				name = args[0]
			}
			document := apis[name]
			if document == nil {
				return usageError{fmt.Errorf("there is no API %q, only bootd and photon", name)}
			}
			text, err := document(thisBuild().Version)
			if err != nil {
				return err
			}
			return a.json(text)
		},
	}
}
