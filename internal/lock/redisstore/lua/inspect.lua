-- Reads one lock whole. Changes nothing.
-- Returns {lock key, holder, {token, microseconds waited, record or '', …}, whether the holder is
-- there, its freeze}.
local key = redis.call('HGET', META, 'key') or LOCK
LOCK = key
if redis.call('TYPE', key).ok ~= 'string' and redis.call('EXISTS', key) == 1 then LOCK = '' end -- no lock at all
local waiters = {}
local queue = redis.call('ZRANGE', QUEUE, 0, -1, 'WITHSCORES')
for i = 1, #queue, 2 do
	waiters[#waiters + 1] = queue[i]
	waiters[#waiters + 1] = math.max(0, NOW - arrival(queue[i], queue[i + 1]))
	waiters[#waiters + 1] = alive(queue[i]) or ''
end
local h = holder()
return {key, h, waiters, (presence(h[1])), told_freeze()}
