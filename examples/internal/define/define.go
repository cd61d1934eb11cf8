// Package define applies the projections that the examples have as YAML files,
// as `cairn projection apply` does.
package define

import (
	"context"
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"

	"cairn/client"
)

// Apply defines the projection that a YAML document describes and returns when
// it is live: its rows can be read and its guards hold. Applied again, it
// changes nothing.
func Apply(ctx context.Context, c *client.Client, document []byte) error {
	var definition map[string]any
	if err := yaml.Unmarshal(document, &definition); err != nil {
		return err
	}
	name, _ := definition["name"].(string)
	b, err := json.Marshal(definition)
	if err != nil {
		return err
	}
	defined, err := c.DefineProjection(ctx, name, b)
	if err != nil {
		return fmt.Errorf("define projection %q: %w", name, err)
	}
	return c.WaitLive(ctx, name, defined.Generation, nil)
}
