// Installs git-gitops into the runner's tool cache, and sets the environment of the steps that follow.
"use strict";
const { spawnSync } = require("node:child_process");
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const input = name => (process.env["INPUT_" + name.toUpperCase()] || "").trim();
const append = (file, text) => fs.appendFileSync(process.env[file], text);

function setEnv(name, value) {
  const end = "END_" + crypto.randomBytes(16).toString("hex");
  append("GITHUB_ENV", `${name}<<${end}\n${value}\n${end}\n`);
}

// What follows "::" is decoded by the runner.
function mask(secret) {
  if (secret) console.log("::add-mask::" + secret.replace(/%/g, "%25").replace(/\r/g, "%0D").replace(/\n/g, "%0A"));
}

function fail(message) {
  console.log("::error title=git gitops::" + message);
  process.exit(1);
}

function installed() {
  const r = spawnSync("git-gitops", ["--version"], { encoding: "utf8" });
  const found = r.status === 0 && /git-gitops version (\S+)/.exec(r.stdout);
  return found ? found[1] : "";
}

function install(version) {
  const cache = process.env.RUNNER_TOOL_CACHE || path.join(os.homedir(), ".cache");
  const prefix = path.join(cache, "git-gitops", version || "latest", process.arch);
  const bin = path.join(prefix, "bin");
  // A pinned version is taken from the cache; the newest one is looked up each time.
  if (!version || !fs.existsSync(path.join(bin, "git-gitops"))) {
    const words = [path.join(__dirname, "..", "..", "install.sh"), "--prefix", prefix];
    if (version) words.push("--version", version);
    const env = { ...process.env };
    if (input("download-base")) env.GITOPS_DOWNLOAD_BASE = input("download-base");
    const r = spawnSync("sh", words, { stdio: "inherit", env });
    if (r.status !== 0) fail("could not install git-gitops: see the lines above");
  }
  append("GITHUB_PATH", bin + "\n");
}

// Whether a runner's worker is among our ancestors: then the lock belongs to the job. In the container of a
// job it cannot be seen.
function underWorker() {
  try {
    for (let pid = process.ppid; pid > 1; ) {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
      const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
      if (/^(Runner\.Worker|act_runner|forgejo-runner)/.test(name)) return true;
      pid = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    }
    return false;
  } catch {
    return true; // no /proc: not a container of a job
  }
}

// A program may print the password of a URL alone.
function passwordOf(url) {
  try {
    return decodeURIComponent(new URL(url).password);
  } catch {
    return "";
  }
}

const version = input("version").replace(/^v/, "");
const have = installed();
if (!have || (version && have !== version)) install(version);

for (const name of ["host", "port", "username", "password", "tls", "url"]) {
  const value = input("redis-" + name);
  if (!value) continue;
  if (name === "password" || name === "url") mask(value);
  if (name === "url") mask(passwordOf(value));
  setEnv("REDIS_" + name.toUpperCase(), value);
}
if (!process.env.GITOPS_LOCK_SESSION && !underWorker()) setEnv("GITOPS_LOCK_SESSION", "workspace");
append("GITHUB_STATE", `began=${Date.now()}\n`);
