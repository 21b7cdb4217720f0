-- Takes the lock, or a place in the queue.
-- ARGV: 7 ttl, ms  8 ticket or 0  9 record  10 first position in the queue  11 the holder that was
-- seen last, or empty  12 for how long it may still be believed in, ms  13 its record
-- 14 queue, or skip: take no place in the queue  15 group, or empty: of those who wait in it only
-- the newest stays  16 head start, ms  17 when this wait began, by our clock, or 0
-- 18 whether 19 and 20 are known: the freezes of the repository and of the branch that this lock is
-- part of  21 for how long the grant lasts until it is renewed, ms
-- Returns {1, fence, whether a server asks what is declared}, {0, position, ticket, holder, whether
-- the holder is there, freeze, when the wait began}, {-1, how} when the token was ended before,
-- {-3, waiters, holder, whether the holder is there, freeze} when it skips, or {-4} when this lock
-- may have missed a freeze: ask, and come again.
local TTL, TICKET, RECORD, POSITION = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]
local HOLDER, BELIEVED, HELD = ARGV[11], tonumber(ARGV[12]), ARGV[13]
local POLICY, GROUP, HEAD, ARRIVED, ASKED = ARGV[14], ARGV[15], tonumber(ARGV[16]), tonumber(ARGV[17]), ARGV[18]
FIRST = ARGV[21]

local function granted(fence) return {1, fence, how_ended(GUARDED) and 1 or 0} end

if how_ended(TOKEN) then return {-1, how_ended(TOKEN)} end
-- Whoever freezes a repository freezes each of its locks of which there is a key.
if ASKED == '1' then
	for i, scope in ipairs({'repo', 'branch'}) do
		local us, text = parse_until(ARGV[18 + i])
		if us and us > NOW then
			note_freeze(scope, us, text)
			ice(freeze())
		end
	end
elseif redis.call('EXISTS', FENCE) == 0 and redis.call('EXISTS', FROZEN) == 0 then
	return {-4}
end
settle()
local owner = redis.call('GET', LOCK)
local there = -1
if owner and owner ~= TOKEN and owner ~= ICE then
	-- The first in line looks, and the second, for the first may have ended with the holder.
	if alive_before(TOKEN) < 2 then there = end_if_absent(owner) end
	if there == 2 then owner = redis.call('GET', LOCK) end
end
if owner == TOKEN then
	local m = redis.call('HMGET', META, 'owner', 'fence', 'waited')
	if m[1] ~= TOKEN then
		local fence = grant(TOKEN, RECORD, TTL)
		settle()
		return granted(fence)
	end
	redis.call('PEXPIRE', META, DAY) -- a full server allows this, and after it the rest
	if m[3] then
		local at = parse_until(redis.call('HGET', WAITERS, entry(TOKEN)))
		if at and TICKET > 0 then m[3] = ms(m[3] * 1000 - at + TICKET) end -- an older client handed it over
		event('acquired', RECORD, 'fence', m[2], 'wait_ms', m[3], 'position', POSITION)
		redis.call('HDEL', META, 'waited')
	end
	extend(TTL, FIRST)
	leave_queue(TOKEN)
	redis.call('DEL', WAKE .. TOKEN)
	return granted(tonumber(m[2]))
end

local ticket = tonumber(redis.call('ZSCORE', QUEUE, TOKEN) or '')

-- A ticket that is gone, with the lock and its fence, means that the server lost its data. The
-- holder does not know that yet, and has the lock for as long as it may be believed in. If another
-- was granted it since we looked, that one takes it back with its next renewal.
if not owner and not ticket and TICKET ~= 0 and BELIEVED > 0 and redis.call('EXISTS', FENCE) == 0
	and not how_ended(HOLDER) then
	redis.call('HSET', META, 'version', PROTOCOL, 'owner', HOLDER, 'fence', int(KNOWN), 'since', int(NOW),
		'record', HELD, 'ttl', int(BELIEVED), 'key', LOCK, 's:' .. HOLDER, '1', 'restored', '1')
	redis.call('PEXPIRE', META, DAY)
	redis.call('SET', LOCK, HOLDER, 'PX', BELIEVED)
	owner = HOLDER
end

-- No lock lasts longer than its holder has asked for, unless the server's clock was set back since.
if owner and redis.call('HGET', META, 'owner') == owner then
	local ttl = tonumber(redis.call('HGET', META, 'ttl') or '')
	if ttl and redis.call('PTTL', LOCK) > ttl + 1000 then redis.call('PEXPIRE', LOCK, int(ttl)) end
end
if not owner then
	local head = first_alive()
	if not head or head == TOKEN then
		local waited = head and ms(NOW - arrival(TOKEN, redis.call('ZSCORE', QUEUE, TOKEN))) or '0'
		return granted(grant(TOKEN, RECORD, TTL, nil, 'acquired', 'wait_ms', waited, 'position', POSITION))
	end
	hand_over()
	-- One that had shown no life has lost its place with that, and takes it again.
	if ticket and not redis.call('ZSCORE', QUEUE, TOKEN) then ticket = nil end
end

if not ticket and POLICY == 'skip' then
	return {-3, redis.call('ZCARD', QUEUE), holder(), there, told_freeze()}
end

if not ticket then
	local queue = redis.call('ZRANGE', QUEUE, 0, -1, 'WITHSCORES')
	ticket = TICKET
	if ticket == 0 then
		ARRIVED = math.max(NOW, (tonumber(queue[#queue] or '') or 0) + 1)
		ticket = ARRIVED - HEAD * 1000
		for i = 2, #queue, 2 do -- in rising order
			if tonumber(queue[i]) == ticket then ticket = ticket + 1 end
		end
	elseif ARRIVED == 0 then
		ARRIVED = ticket
	end
	for i = 1, GROUP == '' and 0 or #queue, 2 do
		local other, place = queue[i], tonumber(queue[i + 1])
		local at, group = arrival(other, place)
		if group == GROUP then
			local record = select(2, parse_until(redis.call('HGET', WAITERS, other))) or '{}'
			if TICKET > 0 and at > ARRIVED then -- we are back after a loss of data
				remember_end(TOKEN, 'superseded ' .. record, DAY)
				return {-1, how_ended(TOKEN)}
			end
			remember_end(other, 'superseded ' .. RECORD, DAY)
			event('superseded', record, 'wait_ms', ms(NOW - at), 'by', (who(RECORD)))
			leave_queue(other)
			wake(other)
			ticket = math.min(ticket, place)
		end
	end
	if ARRIVED ~= ticket or GROUP ~= '' then
		redis.call('HSET', WAITERS, entry(TOKEN), until_text(ARRIVED, GROUP))
	end
	redis.call('ZADD', QUEUE, int(ticket), TOKEN)
	if redis.call('HSETNX', META, 'key', LOCK) == 1 then redis.call('HSET', META, 'version', PROTOCOL) end
	redis.call('PEXPIRE', META, DAY)
end
redis.call('PEXPIRE', QUEUE, DAY)
local position = redis.call('ZRANK', QUEUE, TOKEN) + 1
redis.call('HSET', WAITERS, TOKEN, until_text(NOW + life(position) * 1000, RECORD))
redis.call('PEXPIRE', WAITERS, DAY)
return {0, position, ticket, holder(), there, told_freeze(), ARRIVED > 0 and ARRIVED or ticket}
