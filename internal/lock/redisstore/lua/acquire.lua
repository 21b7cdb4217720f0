-- Takes the lock, or a place in the queue.
-- ARGV: 7 ttl, ms  8 life of a waiter, ms  9 ticket or 0  10 record  11 first place in the queue
-- 12 the holder that was seen last, or empty  13 for how long it may believe in its lease, ms
-- Returns {1, fence}, {0, place, ticket, holder}, or {-1} when the token was ended before.
local TTL, LIFE, TICKET, RECORD, PLACE = ARGV[7], ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
local HOLDER, BELIEVED = ARGV[12], tonumber(ARGV[13])

if redis.call('EXISTS', ENDED .. TOKEN) == 1 then return {-1} end
local owner = redis.call('GET', LOCK)
if owner == TOKEN then
	if redis.call('HGET', META, 'owner') ~= TOKEN then return {1, grant(TOKEN, RECORD, TTL)} end
	redis.call('PEXPIRE', LOCK, TTL)
	redis.call('PEXPIRE', META, DAY)
	leave_queue(TOKEN)
	local m = redis.call('HMGET', META, 'fence', 'waited')
	if m[2] then
		redis.call('HDEL', META, 'waited')
		event('acquired', RECORD, 'fence', m[1], 'wait_ms', m[2], 'place', PLACE)
	end
	return {1, tonumber(m[1])}
end

local ticket = tonumber(redis.call('ZSCORE', QUEUE, TOKEN) or '')

-- A ticket that is gone, with the lock and its fence, means that the server lost its data. The holder
-- does not know that yet, and has the lock for as long as it believes so. If another was granted it
-- since we looked, that one takes it back with its next renewal.
if not owner and not ticket and TICKET ~= 0 and BELIEVED > 0 and redis.call('EXISTS', FENCE) == 0 then
	redis.call('SET', LOCK, HOLDER, 'PX', BELIEVED)
	redis.call('HSET', META, 'restored', '1')
	owner = HOLDER
end
if not owner then
	local head = first_alive()
	if not head or head == TOKEN then
		local waited = head and ms(NOW - tonumber(redis.call('ZSCORE', QUEUE, TOKEN))) or '0'
		local fence = grant(TOKEN, RECORD, TTL)
		event('acquired', RECORD, 'fence', int(fence), 'wait_ms', waited, 'place', PLACE)
		return {1, fence}
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
	redis.call('HSETNX', META, 'key', LOCK)
	redis.call('PEXPIRE', META, DAY)
end
redis.call('PEXPIRE', QUEUE, DAY)
redis.call('SET', WAITER .. TOKEN, RECORD, 'PX', LIFE)
return {0, redis.call('ZRANK', QUEUE, TOKEN) + 1, ticket, holder()}
