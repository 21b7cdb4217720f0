// Frees what the job still holds, and writes which locks it had into the job's summary.
"use strict";
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");

const input = name => (process.env["INPUT_" + name.toUpperCase()] || "").trim();

function gitops(...words) {
  return spawnSync("git", ["gitops", ...words], { encoding: "utf8", cwd: process.env.GITHUB_WORKSPACE || process.cwd() });
}

function span(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return s + " s";
  return s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
}

const cell = text => String(text).replace(/[|\r\n<>&]/g, " ");

const freed = gitops("unlock", "--session");
process.stdout.write(freed.stderr || "");
if (freed.status !== 0) console.log("::warning title=git gitops::could not free the locks of this job; they expire by themselves");

const run = `${process.env.GITHUB_SERVER_URL}/${process.env.GITHUB_REPOSITORY}/actions/runs/${process.env.GITHUB_RUN_ID}`;
const began = Number(process.env.STATE_began) || Date.now();
const events = gitops("events", "--json", "--since", Math.ceil((Date.now() - began) / 1000) + 60 + "s");
const locks = new Map();
for (const line of (events.stdout || "").split("\n")) {
  let e;
  try {
    e = JSON.parse(line);
  } catch {
    continue;
  }
  if (e.run_url !== run || Date.parse(e.time) < began - 1000) continue;
  const lock = locks.get(e.lock) || { holds: 0, waited: 0, held: 0, ended: "" };
  if (e.type === "acquired") {
    lock.holds++;
    lock.waited += e.wait_seconds;
  }
  if (["released", "expired", "broken", "gone"].includes(e.type)) {
    lock.held += e.hold_seconds;
    lock.ended = e.type;
  }
  locks.set(e.lock, lock);
}
if (locks.size > 0 && process.env.GITHUB_STEP_SUMMARY) {
  let text = "### Locks of git gitops\n\n| lock | times | waited | held | ended |\n|---|---|---|---|---|\n";
  for (const [name, l] of locks) {
    text += `| ${cell(name)} | ${l.holds} | ${span(l.waited)} | ${span(l.held)} | ${cell(l.ended)} |\n`;
  }
  fs.appendFileSync(process.env.GITHUB_STEP_SUMMARY, text);
}
const limit = Number(input("wait-warning") || 300);
for (const [name, l] of locks) {
  if (l.waited > limit) console.log(`::warning title=git gitops::waited ${span(l.waited)} for ${cell(name)}`);
}
