"""Names of T1 series as scanners, clinics of many countries and data sets write them, and what they say of agent."""

WITHOUT = """
AX T1 -C|AX T1 C-|AX T1 GD-|AX T1 Gd(-)|AX T1 (-)|T1 TSE CE-|T1 -KM|T1 TRA KM-|t1_tse_tra_-KM|T1 -GD|T1C-
T1 (C-)|T1 C -|AX T1 W/O|AX T1 WO|AX T1 WITHOUT|AX T1 W/O CONTRAST|AX T1 WO CONTRAST|Ax T1 w/o Gad|AX T1 W-O CON
T1 no contrast|T1 NO GAD|AX T1 NON-CONTRAST|T1 noncon|AX T1 NON CON|T1 NON ENHANCED|T1 unenhanced|AX T1 PRE
AX T1 PRE CONTRAST|T1 PREGAD|T1_pre_Gd|SAG T1 PRE-CON|T1 NC|T1 plain|T1 before contrast
AX T1 WITHOUT IV CONTRAST|preT1|T1pre|T1 post-op pre contrast|T1nc|SAG T1 -CE|T1 nativ|t1_tra_nativ|T1 ohne KM
t1_se_tra_ohne_KM|T1 o. KM|T1 vor KM|T1 v. KM|T1 tra ohne|t1_nat|T1 Ax nativ 4mm|T1 o.KM|T1 sans injection
T1 SANS GADO|T1 avant injection|AX T1 SANS IV|T1 ss inj|T1 non injecté|T1 sans produit de contraste
T1 sin contraste|T1 axial s/c|T1 S/CONTRASTE|T1 SIN CIV|T1 SCIV|AX T1 SIN GADOLINIO|T1 antes de contraste
T1 simple|T1 sem contraste|T1 s/ contraste|T1 AX SEM GD|T1 senza mdc|T1 SENZA M.D.C.|T1 basale|T1 prima di mdc
AX T1 senza|T1 zonder contrast|T1 blanco|T1 voor contrast|T1 zonder Gd|T1 utan kontrast|T1 uten kontrast
T1 uden kontrast|T1 før kontrast|T1 natiivi|T1 ilman tehostetta|T1 bez kontrastu|T1 przed kontrastem|T1 bez k.l.
T1 natívne|T1 nativno|T1 kontraszt nélkül|T1 fara contrast|T1 kontrastsız|T1 kontrast öncesi|T1 без контраста
T1 без КУ|T1 до контраста|T1 нативная|T1 χωρίς σκιαγραφικό|T1 平扫|T1 平掃|T1 增强前|T1 未增强|T1 造影前|T1 単純
T1 造影なし|T1 조영 전|T1 비조영|T1 بدون صبغة
"""
WITH = """
CT1|cT1|cT1w|ceT1w|CE-T1|Gd-T1|Gd_T1|GdT1|post_T1|postT1|T1 W CONT|T1 AX WITH|AX T1 W/ CONTRAST|AX T1 W CONTRAST
T1 W/C|AX T1 +C|AX T1+C|T1C+|T1 C+|Ax T1 (+C)|AX T1 (+)|T1 Gd(+)|AX T1 +GD|AX T1 + GAD|AX T1 GRE +C
SAG BRAVO +GD|T1 +CE|T1 KM+|AX T1 POST|AX T1 POST CONTRAST|AX T1 POST GAD|AX T1 POST-GD|T1 POSTCON|T1 post con
T1post|T1 CE|T1ce|T1Gd|t1gad|T1 GADAVIST|T1wCE|T1_c|T1 C|T1c|AX T1 ENHANCED|AX T1 WITH CONTRAST
T1 AFTER CONTRAST|AX T1 DELAYED|AX T1 FS +C|AX T1 FAT SAT POST|T1 W/ GAD FS|Ax 3D T1 MPRAGE Post
COR T1 FS POST GAD|T1 DOTAREM|T1 post op post contrast|T1 post-op +C|T1 IV+|T1PC|sT1W_3D_TFE_Gd|t1_se_tra_KM
T1 KM|T1-KM|t1 tra nach KM|T1 mit KM|T1 m. KM|T1 n. KM|T1 nach Gadovist|T1 mit Kontrastmittel|t1_mpr_sag_KM|t1km
T1 SE AX APRES INJECTION|3D T1 GADO|T1 AVEC GADO|T1 AVEC|T1 apres Gd|T1 INJ|T1 INJECTÉ|T1 con contraste
T1 C/CONTRASTE|T1 c/c|T1 CCIV|T1 CON CIV|T1 CON GADOLINIO|T1 tras contraste|T1 despues de contraste
T1 com contraste|T1 pós contraste|T1 após contraste|T1 POS GD|T1 con mdc|T1 dopo mdc|T1 DOPO M.D.C.|T1 SE ax mdc
T1 met contrast|T1 na contrast|T1 na Gd|T1 med kontrast|T1 efter kontrast|T1 etter kontrast|T1 tehosteinen
T1 po kontraście|T1 z kontrastem|T1 po k.l.|T1 s kontrastem|T1 cu contrast|T1 kontrastlı|T1 с контрастом|T1 с КУ
T1 после контраста|T1 με σκιαγραφικό|T1 增强|T1 增強|T1 造影|T1 造影後|T1 조영증강|T1 조영 후|T1 مع صبغة
T1 بعد صبغة|ce-gadolinium_T1w|T1 POST RADIAL|T1 POST CRANIAL|T1 post radiation +C|T1 post SRS post Gd
"""
BOTH = """
AX T1 +/- C|AX T1 +/-C|AX T1 ±C|T1 C+/-|AX T1 (+/-) GD|T1 W/WO|AX T1 W & W/O|AX T1 W/ AND W/O CONTRAST
T1 WWO CONTRAST|T1 WITH AND WITHOUT CONTRAST|T1 PRE/POST|T1 pre and post Gd|T1 mit und ohne KM|T1 ohne/mit KM
T1 sans et avec gado|T1 -C+C|T1 con y sin contraste|T1 C/S contraste|T1 senza e con mdc|AX T1-C|AX T1 - C
T1 平扫+增强
"""
NOTHING = """
AX T1|t1_mprage_sag_p2_iso|T1w post op|T1 post-op|ses-post_T1w|T1 SE TRA|T1 FLAIR|T1 W|T1 with FS
T1 without fat sat|AX T1 W/ FATSAT|T1 w/o FS|t1_tse_tra|SAG 3D BRAVO|T1 TFE|T1 Ax 3mm|T1_se_tra_320|WIP T1W_SE
T1 post RT|T1 C-SPINE|t1_vibe_fs_tra|T1w|Ax T1 MEMP|3D T1 TFE sag|t1_fl2d_tra|T1 SPIR|T1 post treatment
T1 pre-op|T1 COR|AX T1 SE|O-Ax T1|T1 IR|T1 mit FS|P1_post_radiation_T1|T1 pre radiation|T1 post irradiation
T1 post craniotomy|T1 pre craniotomy|T1 post Kraniotomie|T1 post craniectomy|T1 post SRS|T1 post SRT|T1 post WBRT
T1 post gamma knife|T1 post GammaKnife|T1 post GKRS|T1 post CyberKnife|T1 post stroke|T1 post trauma|T1 posttraumatic
T1 post Avastin|T1 post bevacizumab|T1 post TMZ|T1 post temozolomide|T1 post chemoradiation|T1 post chemotherapy
T1 post radchemo|T1 post CCRT|T1 post immunotherapy|T1 post embolization|T1 post ablation|T1 post debulking
"""
SAID = [
    (name, said)
    for said, names in {"without": WITHOUT, "with": WITH, "both": BOTH, "": NOTHING}.items()
    for name in names.replace("\n", "|").split("|")
    if name
]
