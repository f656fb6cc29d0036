-- Begins the scripts that follow; before it stands `run`, the id of the Redis process they were loaded into. Scripts end with
-- their process, so whoever calls one of another process is told (NOSCRIPT) and loads them anew.
-- The life of the counters (the epoch) ends with their data or with their process: what a snapshot or a replica knows may lie
-- behind what was spent, so it is dropped, and summed from SQL again.
local function life(key, time)
  local epoch = redis.call('GET', key)
  if epoch and string.sub(epoch, -#run - 1) == '/' .. run then return epoch end
  if epoch then
    local cursor = '0'
    repeat
      local found = redis.call('SCAN', cursor, 'MATCH', string.gsub(key, 'epoch$', '*'), 'COUNT', 1000)
      cursor = found[1]
      if #found[2] > 0 then redis.call('UNLINK', unpack(found[2])) end
    until cursor == '0'
  end
  epoch = time[1] .. '.' .. time[2] .. '/' .. run
  redis.call('SET', key, epoch)
  return epoch
end
