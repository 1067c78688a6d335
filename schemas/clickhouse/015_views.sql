-- A view keeps the columns that its table had when it was made: these three lack what came since (012, 013).
CREATE OR REPLACE VIEW v_requests AS SELECT * FROM requests FINAL;

CREATE OR REPLACE VIEW v_evidence AS SELECT * FROM evidence FINAL;

CREATE OR REPLACE VIEW v_keys AS SELECT * FROM keys FINAL WHERE gone = 0;
