-- Correct taken claims. KEYS: counters, and (for a correction that may be tried again) the name it is remembered by.
-- ARGV per counter: difference (a signed integer), lease ('' = a plain counter); last, how many seconds to remember the name.
-- A counter that is gone stays gone: its window is over. INCRBY is exact over 64 bits; only the sign is looked at here.
local claims = math.floor(#ARGV / 2)
if #KEYS > claims and not redis.call('SET', KEYS[#KEYS], '1', 'NX', 'EX', ARGV[#ARGV]) then return 0 end
for index = 1, claims do
  local key, difference, lease = KEYS[index], ARGV[2 * index - 1], ARGV[2 * index]
  if lease ~= '' then
    redis.call('ZREM', key, lease)
  elseif redis.call('EXISTS', key) == 1 and redis.call('INCRBY', key, difference) < 0 then
    redis.call('SET', key, '0', 'KEEPTTL')
  end
end
return 1
