// Command check holds the files of the kits, and what their READMEs and docs/ci.md say to paste,
// against what their systems publish: the schemas of Tekton and Argo in their Go modules, where a
// field that a schema does not know is an error; the schema of GitLab in gitlab-ci-local of npm,
// which also fills in the component's inputs; and actionlint. Run it in this folder: go run .
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

const (
	tekton     = "github.com/tektoncd/pipeline@v1.0.0"
	argo       = "github.com/argoproj/argo-workflows/v3@v3.6.0"
	gitlab     = "gitlab-ci-local@4.61.1"
	actionlint = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"

	tektonV1 = "pkg/apis/pipeline/v1/swagger.json"
)

// source is a document: the nth of a YAML file, or the nth block of YAML below a heading of a page.
// What stands around a part of a document comes before it.
type source struct {
	file, heading string
	nth           int
	around        string
}

var modules = []struct {
	source
	module, schema, definition string
}{
	{source{file: "tekton/task-one-step.yaml"}, tekton, tektonV1, "v1.Task"},
	{source{file: "tekton/task-steps.yaml"}, tekton, tektonV1, "v1.Task"},
	{source{file: "tekton/unlock.yaml"}, tekton, tektonV1, "v1.Task"},
	{source{file: "tekton/step-action.yaml"}, tekton, "pkg/apis/pipeline/v1beta1/swagger.json", "v1beta1.StepAction"},
	{source{file: "argo/workflow-template.yaml"}, argo, "api/jsonschema/schema.json", "io.argoproj.workflow.v1alpha1.WorkflowTemplate"},
	{source{file: "../../docs/ci.md", heading: "### Tekton"}, tekton, tektonV1, "v1.Task"},
	{source{file: "../../docs/ci.md", heading: "### Tekton", nth: 1}, tekton, tektonV1, "v1.Task"},
	{source{file: "tekton/README.md", heading: "# Tekton", around: `{apiVersion: tekton.dev/v1, kind: Pipeline, metadata: {name: a}, spec: {tasks: [{name: b, taskRef: {name: c}}]}}`}, tekton, tektonV1, "v1.Pipeline"},
}

// pipelines are files .gitlab-ci.yml, and workflows those of GitHub.
var (
	pipelines = []source{
		{file: "gitlab/README.md", heading: "# GitLab"},
		{file: "../../docs/ci.md", heading: "### GitLab"},
	}
	workflows = []source{
		{file: "github/README.md", heading: "# GitHub", around: `{on: push, jobs: {a: {runs-on: ubuntu-24.04}}}`},
		{file: "../../docs/ci.md", heading: "### GitHub"},
	}
)

func main() {
	failed := false
	for _, c := range modules {
		object, err := c.read()
		if err == nil {
			err = check(object, c.module, c.schema, c.definition)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.source, err)
			failed = true
		}
	}
	if err := errors.Join(checkPipelines(), checkWorkflows()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		failed = true
	}
	if failed {
		os.Exit(1)
	}
	fmt.Println(len(modules)+len(pipelines)+len(workflows), "documents are as", tekton, argo, gitlab, "and", actionlint, "want them")
}

func (s source) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %d", s.file, s.heading, s.nth))
}

// read finds a document, and puts it into what stands around it: into the job a, or spec.
func (s source) read() (map[string]any, error) {
	text, err := os.ReadFile(filepath.Join("..", s.file))
	if err != nil {
		return nil, err
	}
	documents := strings.Split(string(text), "\n---\n")
	if s.heading != "" {
		_, below, found := strings.Cut("\n"+string(text), "\n"+s.heading)
		if !found {
			return nil, errors.New("no such heading")
		}
		documents = nil
		for _, after := range strings.Split(below, "\n```yaml\n")[1:] {
			block, _, _ := strings.Cut(after, "\n```")
			documents = append(documents, block)
		}
	}
	if s.nth >= len(documents) {
		return nil, errors.New("no such document")
	}
	var object, whole map[string]any
	if err := errors.Join(yaml.Unmarshal([]byte(documents[s.nth]), &object), yaml.Unmarshal([]byte(s.around), &whole)); err != nil {
		return nil, err
	}
	if whole == nil {
		return object, nil
	}
	place := whole
	for _, name := range []string{"spec", "jobs", "a"} {
		if inner, ok := place[name].(map[string]any); ok {
			place = inner
		}
	}
	maps.Copy(place, object)
	return whole, nil
}

// checkPipelines has gitlab-ci-local expand each, which checks the result. The component's place is
// taken by its file.
func checkPipelines() error {
	dir, err := os.MkdirTemp("", "kits-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing of it is needed
	if err := run(dir, "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", "tool", gitlab); err != nil {
		return err
	}
	template, err := os.ReadFile("../gitlab/template.yml")
	if err != nil {
		return err
	}
	var errs []error
	for i, s := range pipelines {
		project := filepath.Join(dir, fmt.Sprint(i))
		object, err := s.read()
		if includes, ok := object["include"].([]any); ok {
			for _, include := range includes {
				include := include.(map[string]any)
				delete(include, "component")
				include["local"] = "templates/deploy.yml"
			}
		}
		err = errors.Join(err, write(filepath.Join(project, "templates", "deploy.yml"), template), writeJSON(filepath.Join(project, ".gitlab-ci.yml"), object))
		if err == nil {
			err = errors.Join(
				run(project, "git", "init", "-q"), run(project, "git", "remote", "add", "origin", "https://gitlab.example.com/org/repo.git"),
				run(project, "git", "add", "."),
				run(project, "git", "-c", "user.name=kits", "-c", "user.email=kits@example.com", "commit", "-q", "-m", "kits"),
				run(project, "node", filepath.Join(dir, "tool/node_modules/gitlab-ci-local/src/index.js"), "--preview"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s, err))
		}
	}
	return errors.Join(errs...)
}

func checkWorkflows() error {
	dir, err := os.MkdirTemp("", "kits-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing of it is needed
	var errs []error
	for i, s := range workflows {
		object, err := s.read()
		file := filepath.Join(dir, fmt.Sprintf("%d.yml", i))
		if err = errors.Join(err, writeJSON(file, object)); err == nil {
			err = run(".", "go", "run", actionlint, file)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s, err))
		}
	}
	return errors.Join(errs...)
}

// writeJSON writes a document as JSON, which is YAML.
func writeJSON(file string, object map[string]any) error {
	text, err := json.MarshalIndent(object, "", "  ")
	return errors.Join(err, write(file, text))
}

func write(file string, text []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600))
}

func run(dir, name string, words ...string) error {
	cmd := exec.Command(name, words...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, words[0], err, out)
	}
	return nil
}

func check(object map[string]any, module, schemaFile, definition string) error {
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
	return compiled.Validate(any(object))
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
