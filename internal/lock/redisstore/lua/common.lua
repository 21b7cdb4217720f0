-- Shared by every script.
-- KEYS: 1 lock  2 meta  3 queue  4 fence  5 events  6 waiters  7 ended  8 alive, which is the
-- prefix of channels and never written: while a slot of a Cluster moves, a script runs only where
-- all of its keys are, so with this one nowhere  9 frozen
-- None can fail halfway because a key has moved. The wake list of the next in line is the one key
-- that cannot be named beforehand.
-- ARGV: 1 token  2 prefix of wake keys  3 claim, ms  4 most events that are kept, 0 for none
-- 5 life of a waiter, ms  6 the greatest fence that the client knows of
-- What may be refused (a command by ACL, a key by its type) comes before what grants the lock, and
-- every script may be repeated.
local LOCK, META, QUEUE, FENCE, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local WAITERS, ENDED, ALIVE, FROZEN = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local TOKEN, WAKE, CLAIM, KEEP = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local LIFE, KNOWN = tonumber(ARGV[5]), tonumber(ARGV[6])
local DAY = 86400000
-- Stands for a freeze among those who hold and share a lock. Its second share is for older clients,
-- which count a holder twice that they take over from.
local ICE = '!frozen'
local function icy(field) return string.sub(field, 1, 3) == 's:!' end
local PROTOCOL = 1
local STRETCH, NEAR, FAR = 6, 4, 20
local RENEWAL_SLACK = 5000 -- ms
local GRACE, MOVE_GRACE = 5000000, 30000000 -- µs
-- Whether what ends a hold goes on when it may not be noted as an event.
local FREEING = false
-- For how long a grant lasts until its holder has renewed it for the first time, ms; nil: for its
-- TTL.
local FIRST = nil

local version = tonumber(redis.call('HGET', META, 'version') or '') or 0
if version > PROTOCOL then return {-2, version} end -- a newer client's, which is left alone

local t = redis.call('TIME')
local NOW = t[1] * 1000000 + t[2] -- microseconds, exact in a double until the year 2255

local function int(n) return string.format('%.0f', n) end

-- Who a record speaks of, in a few words, and the CI run that it names. Anybody may have written
-- it.
local function who(record)
	local ok, r = pcall(cjson.decode, record)
	if not ok or type(r) ~= 'table' then return 'unknown', '' end
	local function word(v) return type(v) == 'string' and string.sub(v, 1, 200) or '' end
	return word(r.user) .. '@' .. word(r.host) .. ' (' .. word(r.command) .. ')', word(r.run_url)
end

-- Notes an event; more are further fields of it.
local function event(kind, record, ...)
	if KEEP == 0 then return end
	local name, run = who(record)
	local call = FREEING and redis.pcall or redis.call
	call('XADD', EVENTS, 'MAXLEN', '~', KEEP, '*', 'type', kind, 'who', name, 'run', run,
		'lock', LOCK, 'queue', redis.call('ZCARD', QUEUE), ...)
	call('PEXPIRE', EVENTS, 7 * DAY)
end

local function ms(us) return int(math.max(0, us) / 1000) end

-- How long the lock has been held, by its record.
local function held()
	return ms(NOW - (tonumber(redis.call('HGET', META, 'since') or '') or NOW))
end

-- The number never falls: the clock carries it over a loss of data, and the clients over a failover
-- to a slower clock.
local function next_fence()
	local last = tonumber(redis.call('GET', FENCE) or '') or 0
	local fence = math.max(NOW, last + 1, KNOWN + 1)
	redis.call('SET', FENCE, int(fence), 'PX', 7 * DAY)
	return fence
end

-- A value that counts until a time, microseconds: the members of waiters and ended.
local function until_text(us, text) return int(us) .. ' ' .. text end

local function parse_until(value)
	local us, text = string.match(value or '', '^(%d+) (.*)$')
	return tonumber(us or ''), text
end

-- How the token's hold or wait was ended, nil if it was not or that is forgotten.
local function how_ended(owner)
	local us, how = parse_until(redis.call('HGET', ENDED, owner))
	return us and us >= NOW and how or nil
end

-- Stands among the tokens that were ended, for a branch of which a server asks what is declared.
-- That is remembered for a week.
local GUARDED = '!guarded'

-- Remembers how the token's hold or wait was ended, so that nothing late revives it. A few that
-- have lapsed are dropped each time.
local function remember_end(owner, how, for_ms)
	local some = redis.call('HRANDFIELD', ENDED, 5, 'WITHVALUES')
	for i = 1, #some, 2 do
		local us = parse_until(some[i + 1])
		if not us or us < NOW then redis.call('HDEL', ENDED, some[i]) end
	end
	redis.call('HSET', ENDED, owner, until_text(NOW + for_ms * 1000, how))
	redis.call('PEXPIRE', ENDED, redis.call('HEXISTS', ENDED, GUARDED) == 1 and 7 * DAY or DAY)
end

-- A waiter's record, nil if it has shown no life lately, and until when it counts as alive.
local function alive(owner)
	local us, record = parse_until(redis.call('HGET', WAITERS, owner))
	if not us or us < NOW then return nil end
	return record, us
end

-- The field of WAITERS that says when a waiter arrived, if that is not its ticket, and its group.
local function entry(owner) return 'p:' .. owner end

local function leave_queue(owner)
	redis.call('ZREM', QUEUE, owner)
	redis.call('HDEL', WAITERS, owner, entry(owner))
end

-- When a waiter with this ticket arrived, and its group.
local function arrival(owner, ticket)
	local us, group = parse_until(redis.call('HGET', WAITERS, entry(owner)))
	return us or tonumber(ticket), group or ''
end

-- Wakes a waiter.
local function wake(owner)
	redis.call('RPUSH', WAKE .. owner, '1')
	redis.call('PEXPIRE', WAKE .. owner, CLAIM)
end

-- For how long a waiter may be silent, ms, by its place in line: see lock.Pace.
local function life(position)
	return LIFE * (1 + (STRETCH - 1) * math.min(math.max(position - NEAR, 0), FAR - NEAR) / (FAR - NEAR))
end

-- Extends the lock to ttl, ms, or to first if that is given. One that another who shares it has
-- extended further is not shortened.
local function extend(ttl, first)
	local m = redis.call('HMGET', META, 'ttl', 'lease')
	if tonumber(ttl) > (tonumber(m[1] or '') or 0) then redis.call('HSET', META, 'ttl', ttl) end
	if m[2] and tonumber(ttl) > tonumber(m[2]) then redis.call('HSET', META, 'lease', ttl) end
	local least = tonumber(first or ttl)
	if redis.call('PTTL', LOCK) < least then redis.call('PEXPIRE', LOCK, int(least)) end
end

-- Makes a token the holder, and notes the event of that kind if there is one. waited, ms, is that
-- of a waiter who must confirm it.
local function grant(owner, record, ttl, waited, kind, ...)
	local last = redis.call('HMGET', META, 'owner', 'record', 'fence')
	local fence = next_fence()
	if last[1] and last[1] ~= owner and last[1] ~= ICE and kind ~= 'taken_over' and not how_ended(last[1]) then
		event('expired', last[2], 'fence', last[3], 'hold_ms', held())
	end
	if kind then event(kind, record, 'fence', int(fence), ...) end
	leave_queue(owner)
	redis.call('DEL', META)
	redis.call('HSET', META, 'version', PROTOCOL, 'owner', owner, 'fence', int(fence), 'since', int(NOW),
		'record', record, 'ttl', ttl, 'key', LOCK, 's:' .. owner, '1')
	redis.call('PEXPIRE', META, DAY)
	if waited then
		redis.call('HSET', META, 'waited', waited)
		wake(owner)
	end
	redis.call('SET', LOCK, owner, 'PX', not waited and FIRST or ttl)
	return fence
end

-- How many share the lock, its holder among them.
local function shares()
	local n = 0
	for _, field in ipairs(redis.call('HKEYS', META)) do
		if string.sub(field, 1, 2) == 's:' and not icy(field) then n = n + 1 end
	end
	return n
end

-- The freeze of this lock that lasts longest: until when (µs), what it says, and whose it is (own,
-- branch or repo: who froze the branch or the whole repository froze this lock too); nil for none.
-- The text is since when (µs) and JSON.
local function freeze()
	local last, text, scope
	for i, value in ipairs(redis.call('HMGET', FROZEN, 'own', 'branch', 'repo')) do
		local us, said = parse_until(value or '')
		if us and us > NOW and us > (last or 0) then
			last, text, scope = us, said, ({'own', 'branch', 'repo'})[i]
		end
	end
	return last, text, scope
end

-- What a client gets of it: ms left, µs since it began, JSON, scope. 0 ms: the lock is not
-- frozen.
local function told_freeze()
	local us, text, scope = freeze()
	if not us then return {0, 0, '', ''} end
	local since, json = parse_until(text)
	return {math.ceil((us - NOW) / 1000), math.max(0, NOW - (since or NOW)), json or '', scope}
end

-- A freeze holds a free lock, and shares one that is held: clients that know no freeze know these,
-- so that they leave the lock alone. The present hold must not expire until then, because such a
-- client would take the lock then.
local function ice(us, text)
	local left, owner = math.ceil((us - NOW) / 1000), redis.call('GET', LOCK)
	local m = redis.call('HMGET', META, 'owner', 'ttl', 'lease', 'since')
	if owner and owner ~= ICE and (m[1] ~= owner or shares() > 0) then
		if m[1] ~= owner then return end -- a writer that is not git-gitops
		local lease = tonumber(m[3] or m[2] or '') or redis.call('PTTL', LOCK)
		local ttl, now = math.max(lease, left), redis.call('PTTL', LOCK)
		redis.call('HSET', META, 's:' .. ICE, '1', 's:' .. ICE .. '2', '1', 'r:' .. ICE, text, 'lease', int(lease), 'ttl', int(ttl))
		if now < left then
			redis.call('PEXPIRE', LOCK, int(left))
		elseif now > ttl then
			redis.call('PEXPIRE', LOCK, int(ttl))
		end
		return
	end
	local since, json = parse_until(text)
	local ok, said = pcall(cjson.decode, json or '')
	local record = ok and type(said) == 'table' and type(said.by) == 'table' and cjson.encode(said.by) or '{}'
	local fence = redis.call('GET', FENCE) or '1' -- a freeze is no grant
	redis.call('DEL', META)
	redis.call('HSET', META, 'version', PROTOCOL, 'owner', ICE, 'fence', fence, 'since', int(since or NOW),
		'record', record, 'ttl', int(left), 'key', LOCK, 's:' .. ICE, '1')
	redis.call('PEXPIRE', META, DAY)
	redis.call('SET', LOCK, ICE, 'PX', int(left))
end

-- The first waiter that has shown life lately, its record, and until when it counts as alive; those
-- before it are forgotten.
local function first_alive()
	while true do
		local head = redis.call('ZRANGE', QUEUE, 0, 0)[1]
		if not head then return nil end
		local record, us = alive(head)
		if record then return head, record, us end
		leave_queue(head)
	end
end

-- How many who show life are before one in line, but at most 2.
local function alive_before(owner)
	local n, rank = 0, 0
	while n < 2 do
		local one = redis.call('ZRANGE', QUEUE, rank, rank)[1]
		if not one or one == owner then break end
		if alive(one) then n = n + 1 end
		rank = rank + 1
	end
	return n
end

-- Wakes the first in line if it would else not ask for long, as one does that was far back: it must
-- watch the holder.
local function call_first()
	local head, _, us = first_alive()
	if head and us > NOW + LIFE * 1000 then wake(head) end
end

-- Gives the lock to the next in line, who must confirm it within the claim time.
local function hand_over()
	local head, record = first_alive()
	if not head then return nil end
	local waited = ms(NOW - arrival(head, redis.call('ZSCORE', QUEUE, head)))
	grant(head, record, CLAIM, waited, 'handed_over')
	call_first()
	return head
end

-- Frees the lock, or hands it over, in which case it is true. A frozen one is left to the freeze.
local function free_or_hand_over()
	local us, text = freeze()
	if us then
		redis.call('DEL', LOCK)
		ice(us, text)
		return false
	end
	if hand_over() then return true end
	redis.call('DEL', META)
	redis.call('DEL', LOCK)
	return false
end

-- Ends what a freeze has of the lock, and hands that over if nobody else has it. Returns as
-- free_or_hand_over.
local function melt()
	local owner, m = redis.call('GET', LOCK), redis.call('HMGET', META, 'owner', 'lease')
	redis.call('HDEL', META, 's:' .. ICE, 's:' .. ICE .. '2', 'r:' .. ICE, 'lease')
	if owner == ICE then return free_or_hand_over() end
	if m[2] then redis.call('HSET', META, 'ttl', m[2]) end
	if not owner or m[1] ~= owner then return false end
	if shares() == 0 then return free_or_hand_over() end -- released by an older client
	if m[2] and redis.call('PTTL', LOCK) > tonumber(m[2]) then redis.call('PEXPIRE', LOCK, m[2]) end
	return false
end

-- Brings the lock and its freeze into line, whatever older clients did. Returns whether it is
-- frozen.
local function settle()
	local us, text = freeze()
	local owner, m = redis.call('GET', LOCK), redis.call('HMGET', META, 'owner', 's:' .. ICE)
	if us then
		local lost = owner == ICE and m[1] ~= ICE
		local alone = owner and owner ~= ICE and m[1] == owner and (not m[2] or shares() == 0)
		if not owner or lost or alone then ice(us, text) end
	elseif owner == ICE or m[2] then
		melt()
	end
	return us ~= nil
end

-- Notes a freeze of this scope.
local function note_freeze(scope, us, text)
	redis.call('HSET', FROZEN, scope, until_text(us, text))
	local left = math.ceil((us - NOW) / 1000)
	if redis.call('PTTL', FROZEN) < left then redis.call('PEXPIRE', FROZEN, int(left)) end
end

-- Who holds the lock: token, ms left, fence, microseconds held, record, ttl in ms, and all who
-- share it, the holder among them unless it has released its share: {token, record, ...}. A writer
-- that is not git-gitops left no record, or that of a holder before it.
local function holder()
	local owner = redis.call('GET', LOCK)
	if not owner or owner == ICE then return {'', 0, 0, 0, '', 0, {}} end
	local left = redis.call('PTTL', LOCK)
	local m = redis.call('HMGET', META, 'owner', 'fence', 'since', 'record', 'ttl', 'lease')
	if m[1] ~= owner then return {owner, left, 0, 0, '', 0, {}} end
	local parts = {}
	for _, field in ipairs(redis.call('HKEYS', META)) do
		if string.sub(field, 1, 2) == 's:' and not icy(field) then
			local token = string.sub(field, 3)
			parts[#parts + 1] = token
			parts[#parts + 1] = redis.call('HGET', META, 'r:' .. token) or ''
		end
	end
	return {owner, left, tonumber(m[2]), math.max(0, NOW - tonumber(m[3])), m[4] or '', tonumber(m[6] or m[5] or '') or left, parts}
end

-- Remembers how the hold of everybody who shares the lock ended.
local function remember_ends(owner, how)
	remember_end(owner, how, DAY)
	for _, field in ipairs(redis.call('HKEYS', META)) do
		if string.sub(field, 1, 2) == 's:' then remember_end(string.sub(field, 3), how, DAY) end
	end
end

-- Presence: a subscription ends with its process. The field of each who shares the lock has which
-- server counts its subscription; 'moving' when it has one that is not counted here yet; or 1 when
-- it claims none.

-- What tells this server from all others and from itself after a restart or failover, how it counts
-- subscriptions, and whether it has replicas; nil when it does not say.
local function server()
	local general, replication = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
	if type(general) ~= 'string' or type(replication) ~= 'string' then return nil end
	local run, repl = string.match(general, 'run_id:(%w+)'), string.match(replication, 'master_replid:(%w+)')
	if not run or not repl then return nil end
	-- Valkey calls it server_mode.
	local mode = string.match(general, 'redis_mode:(%w+)') or string.match(general, 'server_mode:(%w+)')
	local count = mode == 'cluster' and 'SHARDNUMSUB' or 'NUMSUB'
	return run .. ' ' .. repl, count, (string.match(replication, 'connected_slaves:(%d+)') or '0') ~= '0'
end

-- How many are subscribed for a holder; nil when the server does not say.
local function subscribers(owner, count)
	local n = redis.pcall('PUBSUB', count, ALIVE .. ':' .. owner)
	return type(n) == 'table' and tonumber(n[2]) or nil
end

-- Whether the last renewal is so old that a holder that lives would have made another: one is due
-- after a third of the TTL, and some time to carry it out. Of one that a freeze has extended
-- nothing tells.
local function overdue()
	local m = redis.call('HMGET', META, 'ttl', 'lease')
	local ttl = not m[2] and tonumber(m[1] or '')
	return ttl and redis.call('PTTL', LOCK) < ttl * 2 / 3 - RENEWAL_SLACK
end

-- Whether a holder is there: 1 yes, 0 nobody is subscribed for it, -1 unknown, because somebody
-- who shares the lock does not claim to be subscribed at this very server. And for how long nobody
-- must be subscribed, µs, until it counts as gone.
local function presence(owner)
	local fields, claims, replicated = redis.call('HKEYS', META), {}, false
	if #fields == 0 then return -1 end
	local values = redis.call('HMGET', META, unpack(fields))
	for i, field in ipairs(fields) do
		local value = values[i]
		if field == 'owner' and value ~= owner or field == 'unsure' then return -1 end
		if field == 'replicated' then replicated = true end
		if string.sub(field, 1, 2) == 's:' and not icy(field) then
			if value == '1' then return -1 end
			claims[#claims + 1] = value
		end
	end
	if #claims == 0 then return -1 end
	local here, count, replicas = server()
	-- A primary that has lost its replicas may have been replaced, and the holder be at the new
	-- one.
	if not here or replicated and not replicas then return -1 end
	local grace = GRACE
	for _, claim in ipairs(claims) do
		if claim ~= here then -- since a restart or failover its processes have not come to this server
			if not overdue() then return -1 end
			grace = MOVE_GRACE
		end
	end
	local n = subscribers(owner, count)
	return n and math.min(n, 1) or -1, grace
end

local function found() redis.call('HDEL', META, 'absent', 'looks') end

-- Looks whether the holder is there, and ends its hold when nobody was for the grace and three
-- looks.
-- Returns what presence does, or 2 when it ended the hold.
local function end_if_absent(owner)
	local state, grace = presence(owner)
	if state == 1 then found() end
	if state ~= 0 then return state end
	local m = redis.call('HMGET', META, 'absent', 'looks', 'record', 'fence')
	local since, looks = tonumber(m[1] or ''), tonumber(m[2] or '') or 0
	if not since or since > NOW then since, looks = NOW, 0 end -- or the clock has stepped back
	looks = looks + 1
	if looks < 3 or NOW - since < grace then
		redis.call('HSET', META, 'absent', int(since), 'looks', looks)
		return 0
	end
	remember_ends(owner, 'gone')
	event('gone', m[3], 'fence', m[4], 'hold_ms', held())
	free_or_hand_over()
	return 2
end
