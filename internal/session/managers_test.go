package session

import (
	"strings"
	"testing"
)

func TestInstalls(t *testing.T) {
	tests := []struct {
		up    []proc // ancestors, nearest first
		clone string
		event string
		want  bool
	}{
		{up: tree("terraform|init", "bash"), want: true},
		{up: tree("timeout|9|git", "terraform|-chdir=apply|get", "bash"), want: true},
		{up: tree("tofu|init", "bash"), want: true},
		{up: tree("git|submodule", "terraform|init", "bash"), want: true},
		{up: tree("terragrunt|run|--all|init", "bash"), want: true},
		{up: tree("terragrunt|apply", "bash")},
		{up: tree("terraform|apply|init", "bash")}, // init is a file
		{up: tree("terraform|apply", "bash")},
		{up: tree("sh|-c|git clone x; y", "terraform|apply", "bash")},
		{up: tree("bash|x.sh", "terraform|init", "bash")},

		{up: tree("npm install x||", "bash"), want: true},
		{up: tree("npm --prefix app ci", "bash"), want: true},
		{up: tree("node|/usr/bin/npm|i|x", "bash"), want: true},
		{up: tree("npm ci", "sh|-c|npm ci", "npm run build", "bash"), event: "build", want: true},
		{up: tree("npm install", "bash"), event: "postinstall"}, // sh -c, in whose place git is
		{up: tree("npm run install", "bash"), event: "install"},
		{up: tree("npm run deploy", "bash"), event: "deploy"},
		{up: tree("npm exec -c git clone x", "bash")},
		{up: tree("sh|-c|git clone x", "npm run deploy", "bash"), event: "deploy"},
		{up: tree("sh|-c|git clone x", "npm install", "bash"), event: "postinstall"},
		{up: tree("node|deploy.js", "npm run deploy", "bash"), event: "deploy"},
		{up: tree("node|/opt/yarn.js", "bash"), want: true},
		{up: tree("node|/opt/yarn.js|--cwd|app|install", "bash"), want: true},
		{up: tree("node|/opt/yarn.js|deploy", "bash"), event: "deploy"}, // Berry's own shell
		{up: tree("node|/opt/pnpm.cjs|-C|app|add|x", "bash"), want: true},
		{up: tree("node|/opt/pnpm.cjs|exec|git|clone|x", "bash")},
		{up: tree("bun|add|x", "bash"), want: true},
		{up: tree("bun|deploy.ts", "bash")},

		{up: tree("python3.11|/usr/bin/pip3.11|install|x", "bash"), want: true},
		{up: tree("python3|-m|pip|install|x", "bash"), want: true},
		{up: tree("python3|/l/pip/__pip-runner__.py|install|x", "python3|-m|pip", "bash"), want: true},
		{up: tree("python3|setup.py", "python3|-m|pip|install|.", "bash")},
		{up: tree("python3|deploy.py", "bash")},
		{up: tree("python3|/usr/bin/ansible-galaxy|install|x", "bash"), want: true},
		{up: tree("helm|plugin|install|x", "bash"), want: true},

		{up: tree("sh|-c|git clone && cd x", "php|/usr/bin/composer|install", "bash"), clone: "--no-checkout -- x y", want: true},
		{up: tree("php8.2|composer.phar|update", "bash"), clone: "--mirror -- x y", want: true},
		{up: tree("sh|-c|git clone x", "php|/usr/bin/composer|run|deploy", "bash"), clone: "x"},
		{up: tree("php|/usr/bin/composer|run|deploy", "bash"), clone: "x"},
		{up: tree("bash|x.sh", "php|/usr/bin/composer|run|deploy", "bash"), clone: "--bare x"},
		{up: tree("ruby3.1|/usr/bin/bundle|install", "bash"), clone: "--bare --quiet -- x y", want: true},
		{up: tree("ruby|/usr/bin/bundle|exec|rake|deploy", "bash"), clone: "x"},

		{up: tree("bash|install", "bash")},
		{up: tree("bash|npm.sh|install", "bash")},
		{up: nil},
	}
	for _, tt := range tests {
		if got := installs(tt.up, strings.Fields(tt.clone), tt.event); got != tt.want {
			t.Errorf("installs(%+v, %q, %q) = %t", tt.up, tt.clone, tt.event, got)
		}
	}
}
