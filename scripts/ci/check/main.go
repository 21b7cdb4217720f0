// Command check holds the files of the kits against the schemas that Tekton and Argo publish in
// their Go modules. A field that a schema does not know is an error. Run it in this folder: go run
// .
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const (
	tekton = "github.com/tektoncd/pipeline@v1.0.0"
	argo   = "github.com/argoproj/argo-workflows/v3@v3.6.0"
)

var checks = []struct{ file, module, schema, definition string }{
	{"tekton/task-one-step.yaml", tekton, "pkg/apis/pipeline/v1/swagger.json", "v1.Task"},
	{"tekton/task-steps.yaml", tekton, "pkg/apis/pipeline/v1/swagger.json", "v1.Task"},
	{"tekton/unlock.yaml", tekton, "pkg/apis/pipeline/v1/swagger.json", "v1.Task"},
	{"tekton/step-action.yaml", tekton, "pkg/apis/pipeline/v1beta1/swagger.json", "v1beta1.StepAction"},
	{"argo/workflow-template.yaml", argo, "api/jsonschema/schema.json", "io.argoproj.workflow.v1alpha1.WorkflowTemplate"},
}

func main() {
	failed := false
	for _, c := range checks {
		if err := check(c.file, c.module, c.schema, c.definition); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.file, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
	fmt.Println(len(checks), "files are as", tekton, "and", argo, "want them")
}

func check(file, module, schemaFile, definition string) error {
	dir, err := download(module)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, schemaFile))
	if err != nil {
		return err
	}
	var schema struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		return err
	}
	for _, d := range schema.Definitions {
		if _, ok := d["properties"]; ok {
			d["additionalProperties"] = false
		}
	}
	compiler := jsonschema.NewCompiler()
	definitions := map[string]any{}
	for name, d := range schema.Definitions {
		definitions[name] = map[string]any(d)
	}
	// Kubernetes' own types are not in Tekton's file.
	permit(definitions, definitions)
	root := map[string]any{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/" + definition, "definitions": definitions}
	if err := compiler.AddResource("schema.json", root); err != nil {
		return err
	}
	compiled, err := compiler.Compile("schema.json")
	if err != nil {
		return err
	}
	if text, err = os.ReadFile(filepath.Join("..", file)); err != nil {
		return err
	}
	var object any
	if err := yaml.Unmarshal(text, &object); err != nil {
		return err
	}
	return compiled.Validate(object)
}

// permit lets anything pass for a type that the file does not define, or that is written in several
// ways.
func permit(definitions map[string]any, in any) {
	switch v := in.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			name := filepath.Base(ref)
			if _, known := definitions[name]; !known || name == "v1.ParamValue" || name == "v1beta1.ParamValue" {
				delete(v, "$ref")
			}
		}
		for _, value := range v {
			permit(definitions, value)
		}
	case []any:
		for _, value := range v {
			permit(definitions, value)
		}
	}
}

func download(module string) (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", module)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w: %s", module, err, out)
	}
	var answer struct{ Dir string }
	return answer.Dir, json.Unmarshal(out, &answer)
}
