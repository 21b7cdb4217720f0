// Replaces what has changed on a page, and lets its times count. The page works without this.
"use strict";
(() => {
	const parts = document.getElementById("parts");
	const stale = document.getElementById("stale");
	const empty = document.getElementById("empty");
	const find = document.getElementById("q");
	const breaking = document.getElementById("break");
	let ahead = 0; // of the server's clock, in seconds

	function span(s) {
		s = Math.max(0, Math.floor(s));
		if (s < 60) return s + "s";
		if (s < 3600) return Math.floor(s / 60) + "m" + (s % 60) + "s";
		return Math.floor(s / 3600) + "h" + Math.floor(s % 3600 / 60) + "m";
	}

	// As the server's function "rough".
	function rough(s) {
		if (s < 90) return 10 * Math.max(1, Math.round(s / 10)) + " s";
		if (s < 5400) return Math.round(s / 60) + " min";
		return Math.round(s / 3600) + " h";
	}

	function left(t, now) {
		const s = Math.max(t.dataset.turn - now, t.dataset.least);
		if (s < 5) return "soon";
		return ("brief" in t.dataset ? "~" : "about ") + rough(s);
	}

	function say(e, text) {
		if (e.textContent !== text) e.textContent = text;
	}

	function tick() {
		const now = Date.now() / 1000 + ahead;
		for (const t of document.querySelectorAll("time[data-since]")) say(t, span(now - t.dataset.since));
		for (const t of document.querySelectorAll("time[data-turn]")) say(t, left(t, now));
		for (const t of document.querySelectorAll("time[data-clock]")) say(t, new Date(t.dataset.clock * 1000).toLocaleTimeString());
		const right = Math.floor(now / 10) * 10 + 10;
		for (const s of document.querySelectorAll("svg[data-span]")) {
			const view = (right - s.dataset.span - s.dataset.base) + " 0 " + s.dataset.span + " 20";
			if (s.getAttribute("viewBox") !== view) s.setAttribute("viewBox", view);
		}
	}

	function element(html) {
		const box = document.createElement("template");
		box.innerHTML = html.trim(); // the server has escaped it, and the policy allows no script in it
		return box.content.firstElementChild;
	}

	// Makes an element like another one, and leaves alone what is alike: a focus, a selection, a title that shows.
	function become(old, now) {
		for (const {name} of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
		for (const {name, value} of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
		if (old.localName === "time") return; // tick says it
		const children = [...now.childNodes];
		children.forEach((child, i) => {
			const before = old.childNodes[i];
			if (!before) old.append(child);
			else if (before.nodeName !== child.nodeName) before.replaceWith(child);
			else if (child.nodeType === Node.ELEMENT_NODE) become(before, child);
			else if (before.data !== child.data) before.data = child.data;
		});
		while (old.childNodes.length > children.length) old.lastChild.remove();
	}

	function put(id, html) {
		const old = document.getElementById(id);
		const now = element(html);
		if (old) {
			become(old, now);
			return;
		}
		now.classList.add("fresh");
		now.addEventListener("animationend", () => now.classList.remove("fresh"));
		parts.append(now);
	}

	function filter() {
		if (!find) return;
		const wanted = find.value.trim();
		let shown = 0;
		for (const row of parts.children) {
			row.hidden = !row.querySelector("h2 a").title.includes(wanted);
			if (!row.hidden) shown++;
		}
		empty.hidden = shown > 0;
		say(empty, wanted && parts.children.length > 0 ? "No lock has “" + wanted + "” in its name." : document.getElementById("summary").dataset.empty);
	}

	function order(ids) {
		const wanted = new Set(ids);
		for (const e of [...parts.children]) if (!wanted.has(e.id)) e.remove();
		ids.forEach((id, i) => {
			const e = document.getElementById(id);
			if (e && parts.children[i] !== e) parts.insertBefore(e, parts.children[i] || null);
		});
	}

	// Who is about to break a hold breaks the one that he has seen.
	function check() {
		if (!breaking) return;
		const changed = breaking.dataset.hold !== document.getElementById("holder").dataset.hold;
		document.getElementById("changed").hidden = !changed;
		for (const e of breaking.querySelectorAll("form")) e.hidden = changed;
	}

	function update(news) {
		ahead = news.now - Date.now() / 1000;
		for (const id in news.html) put(id, news.html[id]);
		if (news.order) order(news.order);
		filter();
		check();
		tick();
	}

	if (find) {
		find.addEventListener("input", filter);
		find.form.addEventListener("submit", e => e.preventDefault());
		document.addEventListener("keydown", e => {
			if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || document.activeElement === find) return;
			e.preventDefault();
			find.select();
		});
	}
	function connect() {
		const stream = new EventSource(document.body.dataset.stream);
		stream.onopen = () => { stale.hidden = true; };
		stream.onmessage = e => update(JSON.parse(e.data));
		stream.onerror = () => {
			stale.hidden = false;
			if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 5000); // a browser gives up after an answer other than 200
		};
	}
	connect();
	tick();
	setInterval(tick, 1000);
})();
