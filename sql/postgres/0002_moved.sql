-- Where the half message of an open transaction stands now, once its first place in the log was deleted. `tx.half_pos` stays its
-- identity. Empty while no transaction is open for longer than the log keeps messages.
CREATE TABLE halfmoon.moved (
  half_pos bigint PRIMARY KEY,
  position bigint NOT NULL,                               -- of its newest copy in the log
  CHECK (position > half_pos)
);
CREATE FUNCTION halfmoon.moved_has_a_row() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM halfmoon.tx WHERE half_pos = NEW.half_pos) THEN
    RAISE EXCEPTION 'only the half message of a transaction can be moved' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER moved_has_a_row BEFORE INSERT ON halfmoon.moved
FOR EACH ROW EXECUTE FUNCTION halfmoon.moved_has_a_row();
CREATE TRIGGER moved_forward BEFORE UPDATE ON halfmoon.moved
FOR EACH ROW WHEN (NEW.half_pos <> OLD.half_pos OR NEW.position < OLD.position)
EXECUTE FUNCTION halfmoon.refuse('a half message moves forward');
