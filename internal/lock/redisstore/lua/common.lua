-- Shared by every script that changes a lock.
-- KEYS: 1 lock  2 meta  3 queue  4 fence  5 events
-- ARGV: 1 token  2 prefix of waiter keys  3 prefix of wake keys  4 prefix of ended keys  5 claim, ms
-- 6 most events that are kept, 0 for none
local LOCK, META, QUEUE, FENCE, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local TOKEN, WAITER, WAKE, ENDED, CLAIM = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local KEEP = tonumber(ARGV[6])
local DAY = 86400000

local t = redis.call('TIME')
local NOW = t[1] * 1000000 + t[2] -- microseconds, exact in a double until the year 2255

local function int(n) return string.format('%.0f', n) end

-- Who a record speaks of, in a few words, and the CI run that it names. Anybody may have written it.
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
	redis.call('XADD', EVENTS, 'MAXLEN', '~', KEEP, '*', 'type', kind, 'who', name, 'run', run,
		'lock', LOCK, 'queue', redis.call('ZCARD', QUEUE), ...)
	redis.call('PEXPIRE', EVENTS, 7 * DAY)
end

local function ms(us) return int(math.max(0, us) / 1000) end

-- How long the lock has been held, by its record.
local function held()
	return ms(NOW - (tonumber(redis.call('HGET', META, 'since') or '') or NOW))
end

-- The number never falls: the clock carries it over a loss of data.
local function next_fence()
	local last = tonumber(redis.call('GET', FENCE) or '') or 0
	local fence = NOW
	if fence <= last then fence = last + 1 end
	redis.call('SET', FENCE, int(fence), 'PX', 7 * DAY)
	return fence
end

local function leave_queue(owner)
	redis.call('ZREM', QUEUE, owner)
	redis.call('DEL', WAITER .. owner, WAKE .. owner)
end

local function grant(owner, record, ttl)
	local last = redis.call('HMGET', META, 'owner', 'record', 'fence')
	if last[1] and last[1] ~= owner and redis.call('EXISTS', ENDED .. last[1]) == 0 then
		event('expired', last[2], 'fence', last[3], 'hold_ms', held())
	end
	redis.call('SET', LOCK, owner, 'PX', ttl)
	local fence = next_fence()
	redis.call('DEL', META)
	redis.call('HSET', META, 'owner', owner, 'fence', int(fence), 'since', int(NOW), 'record', record, 'key', LOCK, 's:' .. owner, '1')
	redis.call('PEXPIRE', META, DAY)
	leave_queue(owner)
	return fence
end

-- How many share the lock, its holder among them.
local function shares()
	local n = 0
	for _, field in ipairs(redis.call('HKEYS', META)) do
		if string.sub(field, 1, 2) == 's:' then n = n + 1 end
	end
	return n
end

-- The first waiter that has shown life lately; those before it are forgotten.
local function first_alive()
	while true do
		local head = redis.call('ZRANGE', QUEUE, 0, 0)[1]
		if not head then return nil end
		local record = redis.call('GET', WAITER .. head)
		if record then return head, record end
		redis.call('ZREM', QUEUE, head)
	end
end

-- Gives the lock to the next in line, who must confirm it within the claim time.
local function hand_over()
	local head, record = first_alive()
	if not head then return nil end
	local ticket = tonumber(redis.call('ZSCORE', QUEUE, head))
	local fence = grant(head, record, CLAIM)
	redis.call('HSET', META, 'waited', ms(NOW - ticket)) -- until it confirms
	event('handed_over', record, 'fence', int(fence))
	redis.call('RPUSH', WAKE .. head, '1')
	redis.call('PEXPIRE', WAKE .. head, CLAIM)
	return head
end

-- Who holds the lock: token, ms left, fence, microseconds held, record. A writer that is none of
-- ours left no record, or that of a holder before it.
local function holder()
	local owner = redis.call('GET', LOCK)
	if not owner then return {'', 0, 0, 0, ''} end
	local m = redis.call('HMGET', META, 'owner', 'fence', 'since', 'record')
	if m[1] ~= owner then return {owner, redis.call('PTTL', LOCK), 0, 0, ''} end
	return {owner, redis.call('PTTL', LOCK), tonumber(m[2]), NOW - tonumber(m[3]), m[4] or ''}
end
