-- Tells a server whether the holder has declared an update, and then keeps the lock for as long as the server may
-- work. From then on renewals say that a server asks. Each grant and release forgets what was declared.
-- ARGV: 7 ref  8 old object id  9 new object id  10 for how long the lock must last, ms
-- Returns {'' or why not, holder}.
local REF, OLD, NEW, LEAST = ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10])
remember_end(GUARDED, 'yes', 7 * DAY)
local owner = redis.call('GET', LOCK)
local m = redis.call('HMGET', META, 'owner', 'intent')
if not owner or m[1] ~= owner then return {'not-held', holder()} end
local why = 'not-declared'
for line in string.gmatch(m[2] or '', '[^\n]+') do
	local ref, old, new = string.match(line, '^(%S+) (%S+) (%S+)$')
	if ref == REF and new == NEW then
		if old == OLD then
			extend(LEAST)
			return {'', holder()}
		end
		why = 'moved'
	end
end
return {why, holder()}
