-- Where the half message of an open transaction stands now, once its first place in the log was deleted. `tx.half_pos` stays its
-- identity. Empty while no transaction is open for longer than the log keeps messages.
CREATE TABLE moved (
  half_pos INTEGER PRIMARY KEY,
  position INTEGER NOT NULL CHECK (position > half_pos)   -- of its newest copy in the log
) STRICT;
CREATE TRIGGER moved_has_a_row
BEFORE INSERT ON moved WHEN NOT EXISTS (SELECT 1 FROM tx WHERE half_pos = NEW.half_pos)
BEGIN SELECT RAISE(ABORT, 'only the half message of a transaction can be moved'); END;
CREATE TRIGGER moved_forward
BEFORE UPDATE ON moved WHEN NEW.half_pos <> OLD.half_pos OR NEW.position < OLD.position
BEGIN SELECT RAISE(ABORT, 'a half message moves forward'); END;
