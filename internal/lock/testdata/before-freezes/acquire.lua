-- Takes the lock, or a place in the queue.
-- ARGV: 7 ttl, ms  8 ticket or 0  9 record  10 first place in the queue  11 the holder that was seen last,
-- or empty  12 for how long it may still be believed in, ms  13 its record
-- Returns {1, fence, whether a server asks what is declared}, {0, place, ticket, holder, whether the holder is there}, or {-1} when the token was ended before.
local TTL, TICKET, RECORD, PLACE = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]
local HOLDER, BELIEVED, HELD = ARGV[11], tonumber(ARGV[12]), ARGV[13]

local function granted(fence) return {1, fence, how_ended(GUARDED) and 1 or 0} end

if how_ended(TOKEN) then return {-1} end
local owner = redis.call('GET', LOCK)
local there = -1
if owner and owner ~= TOKEN then
	-- The first in line looks, and the second, for the first may have ended with the holder.
	if alive_before(TOKEN) < 2 then there = judge(owner) end
	if there == 2 then owner = redis.call('GET', LOCK) end
end
if owner == TOKEN then
	local m = redis.call('HMGET', META, 'owner', 'fence', 'waited')
	if m[1] ~= TOKEN then return granted(grant(TOKEN, RECORD, TTL)) end
	redis.call('PEXPIRE', META, DAY) -- a full server allows this, and after it the rest
	if m[3] then
		event('acquired', RECORD, 'fence', m[2], 'wait_ms', m[3], 'place', PLACE)
		redis.call('HDEL', META, 'waited')
	end
	extend(TTL)
	leave_queue(TOKEN)
	redis.call('DEL', WAKE .. TOKEN)
	return granted(tonumber(m[2]))
end

local ticket = tonumber(redis.call('ZSCORE', QUEUE, TOKEN) or '')

-- A ticket that is gone, with the lock and its fence, means that the server lost its data. The holder
-- does not know that yet, and has the lock for as long as it may be believed in. If another was granted it
-- since we looked, that one takes it back with its next renewal.
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
		local waited = head and ms(NOW - tonumber(redis.call('ZSCORE', QUEUE, TOKEN))) or '0'
		return granted(grant(TOKEN, RECORD, TTL, nil, 'acquired', 'wait_ms', waited, 'place', PLACE))
	end
	hand_over()
end

if not ticket then
	ticket = TICKET
	if ticket == 0 then
		local last = redis.call('ZRANGE', QUEUE, -1, -1, 'WITHSCORES')[2]
		ticket = math.max(NOW, (tonumber(last or '') or 0) + 1)
	end
	redis.call('ZADD', QUEUE, int(ticket), TOKEN)
	if redis.call('HSETNX', META, 'key', LOCK) == 1 then redis.call('HSET', META, 'version', PROTOCOL) end
	redis.call('PEXPIRE', META, DAY)
end
redis.call('PEXPIRE', QUEUE, DAY)
local place = redis.call('ZRANK', QUEUE, TOKEN) + 1
redis.call('HSET', WAITERS, TOKEN, until_text(NOW + life(place) * 1000, RECORD))
redis.call('PEXPIRE', WAITERS, DAY)
return {0, place, ticket, holder(), there}
