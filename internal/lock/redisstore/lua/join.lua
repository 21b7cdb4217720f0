-- Makes a holder's lock the token's as well ("join"), or instead ("takeover", which nobody may
-- share).
-- ARGV: 7 ttl, ms  8 the holder's token  9 join or takeover  10 record  11 for how long a takeover
-- lasts until it is renewed, ms  12 what our share claims of our presence until it is renewed
-- 13 and on: tokens of all who were seen to share it, or for a takeover of those whose shares end
-- Returns {1, fence, whether a server asks what is declared}, or {0} when the lock is not as it was
-- seen. It may be the token's own by now, by a hand-over or an earlier takeover, which acquire
-- confirms.
local TTL, HOLDER, MODE, RECORD = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
FIRST = ARGV[11]
local function granted(fence) return {1, fence, how_ended(GUARDED) and 1 or 0} end

if how_ended(TOKEN) then return {0} end
local owner = redis.call('GET', LOCK)
local m = redis.call('HMGET', META, 'owner', 'fence')
if m[1] ~= owner or owner ~= HOLDER or freeze() then return {0} end
if MODE == 'takeover' then
	local over = {HOLDER}
	for i = 13, #ARGV do
		if ARGV[i] ~= HOLDER then over[#over + 1] = ARGV[i] end
	end
	local others = shares()
	for _, token in ipairs(over) do others = others - redis.call('HEXISTS', META, 's:' .. token) end
	if others > 0 then return {0} end
	local fence = grant(TOKEN, RECORD, TTL, nil, 'taken_over')
	for _, token in ipairs(over) do remember_end(token, 'taken over', DAY) end
	return granted(fence)
end
-- One who has been handed the lock may be dead until it confirms.
if redis.call('HEXISTS', META, 'waited') == 1 then return {0} end
local seen = redis.call('HEXISTS', META, 's:' .. TOKEN) -- by a join whose answer was lost
for i = 13, #ARGV do
	if ARGV[i] ~= TOKEN then seen = seen + (redis.call('HEXISTS', META, 's:' .. ARGV[i]) == 1 and 1 or -1) end
end
if seen ~= shares() then return {0} end
leave_queue(TOKEN)
redis.call('HSET', META, 's:' .. TOKEN, ARGV[12], 'r:' .. TOKEN, RECORD)
found()
extend(TTL)
return granted(tonumber(m[2]))
