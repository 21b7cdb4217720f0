// Replaces what has changed on a page, and lets its times count. The page works without this.
"use strict";
(() => {
	const parts = document.getElementById("parts");
	const stale = document.getElementById("stale");
	const empty = document.getElementById("empty");
	const find = document.getElementById("q");
	let ahead = 0; // of the server's clock, in seconds

	function span(s) {
		s = Math.max(0, Math.floor(s));
		if (s < 60) return s + "s";
		if (s < 3600) return Math.floor(s / 60) + "m" + (s % 60) + "s";
		return Math.floor(s / 3600) + "h" + Math.floor(s % 3600 / 60) + "m";
	}

	function tick() {
		const now = Date.now() / 1000 + ahead;
		for (const t of document.querySelectorAll("time[data-since]")) {
			const text = span(now - t.dataset.since);
			if (t.textContent !== text) t.textContent = text;
		}
	}

	function clocks(root) {
		for (const t of root.querySelectorAll("time[data-clock]")) {
			t.textContent = new Date(t.dataset.clock * 1000).toLocaleTimeString();
		}
	}

	function element(html) {
		const box = document.createElement("template");
		box.innerHTML = html.trim(); // the server has escaped it, and the policy allows no script in it
		return box.content.firstElementChild;
	}

	function put(id, html) {
		const old = document.getElementById(id);
		const now = element(html);
		const focused = old && old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
		if (old) old.replaceWith(now);
		else parts.append(now);
		if (!old) now.classList.add("fresh");
		if (focused !== null) {
			for (const a of now.querySelectorAll("a")) if (a.getAttribute("href") === focused) a.focus();
		}
	}

	function filter() {
		if (!find) return;
		let shown = 0;
		for (const row of parts.children) {
			const name = row.querySelector("h2").textContent;
			row.hidden = !name.includes(find.value.trim());
			if (!row.hidden) shown++;
		}
		empty.hidden = shown > 0;
		if (shown === 0) empty.textContent = find.value ? "No lock has “" + find.value + "” in its name." : "No lock is held, and nobody waits.";
	}

	function update(news) {
		ahead = news.now - Date.now() / 1000;
		for (const id in news.html) put(id, news.html[id]);
		const wanted = new Set(news.order);
		for (const e of [...parts.children]) if (!wanted.has(e.id)) e.remove();
		news.order.forEach((id, i) => {
			const e = document.getElementById(id);
			if (e && parts.children[i] !== e) parts.insertBefore(e, parts.children[i] || null);
		});
		clocks(document);
		filter();
		tick();
	}

	if (find) {
		find.addEventListener("input", filter);
		find.form.addEventListener("submit", e => e.preventDefault());
	}
	const stream = new EventSource(document.body.dataset.stream);
	stream.onopen = () => { stale.hidden = true; };
	stream.onerror = () => { stale.hidden = false; };
	stream.onmessage = e => update(JSON.parse(e.data));
	clocks(document);
	tick();
	setInterval(tick, 1000);
})();
